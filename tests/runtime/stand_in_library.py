"""A library for the builder's process: it puts the graph into the plan. Steered by the environment."""

import base64
import json
import os
import time
from pathlib import Path

import numpy
import onnx

__version__ = "10.3.0"


class ILogger:
    INTERNAL_ERROR, ERROR, WARNING = range(3)

    def __init__(self):
        pass


class NetworkDefinitionCreationFlag:
    STRONGLY_TYPED = 0


class ProfilingVerbosity:
    DETAILED = 1


class MemoryPoolType:
    WORKSPACE = 0


class Tensor:
    def __init__(self, value):
        self.name = value.name
        kind = value.type.tensor_type
        self.dtype = numpy.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)).name
        self.shape = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim]


class Network:
    def read(self, data):
        self.data, graph = data, onnx.load_from_string(data).graph
        self.inputs, self.outputs = ([Tensor(item) for item in items] for items in (graph.input, graph.output))
        self.num_inputs = len(self.inputs)

    def get_input(self, index):
        return self.inputs[index]


class OnnxParser:
    def __init__(self, network, logger):
        self.network = network

    def parse(self, data):
        self.network.read(data)
        return True


class Profile:
    def set_shape(self, name, *sizes):
        pass


class TimingCache:
    """A JSON list of the graphs that were built with it."""

    def __init__(self, built):
        self.built = built

    def serialize(self):
        return json.dumps(self.built).encode()


class Config:
    timings = None

    def __init__(self, logger):
        self.logger = logger

    def create_timing_cache(self, data):
        try:
            return TimingCache(json.loads(data) if data else [])
        except ValueError:  # as the real one: a remark, and an empty cache
            self.logger.log(ILogger.WARNING, "Failed to deserialize timing cache. Returning an empty timing cache.")
            return TimingCache([])

    def set_timing_cache(self, cache, ignore_mismatch):
        if not ignore_mismatch and "another GPU" in cache.built:
            self.logger.log(ILogger.ERROR, "the timing cache is of another GPU")
            return False
        self.timings = cache
        return True

    def set_memory_pool_limit(self, pool, size):
        self.workspace = size >> 20

    def add_optimization_profile(self, profile):
        pass


class Builder:
    def __init__(self, logger):
        self.logger = logger

    def create_network(self, flags):
        return Network()

    def create_builder_config(self):
        return Config(self.logger)

    def create_optimization_profile(self):
        return Profile()

    def build_serialized_network(self, network, config):
        with Path(os.environ["BUILDS"]).open("a") as stream:
            stream.write(f"{config.workspace}\n")
        time.sleep(float(os.environ.get("BUILD_SECONDS", "0")))
        if config.workspace > int(os.environ.get("WORKSPACE_MIB", "1000000")):
            self.logger.log(ILogger.ERROR, "Error Code 2: OutOfMemory (no further information)")
            return None
        if config.timings is not None:
            known = Path(os.environ["BUILDS"]).with_suffix(".known")
            known.write_text(json.dumps(config.timings.built))
            config.timings.built.append(len(network.data))
        tables = [
            {item.name: (item.dtype, item.shape) for item in items} for items in (network.inputs, network.outputs)
        ]
        graph = base64.b64encode(network.data).decode()
        return numpy.frombuffer(
            json.dumps({"inputs": tables[0], "outputs": tables[1], "graph": graph}).encode(), dtype=numpy.uint8
        )
