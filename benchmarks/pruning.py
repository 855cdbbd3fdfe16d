"""What structured pruning makes of 80 networks: is each one exact, how much is left, how long does it take.

    python -m benchmarks pruning [--networks resnet18 vit_tiny_patch16_224] [--record]

Networks of timm of all families and three of our own (a U-Net, a detector, a CRNN with an LSTM), with seeded random
weights. Each is exported and pruned to half of its multiply-accumulates (uniform shares, by magnitude, no alignment).
The oracle compares the result with the whole network, the same channels at zero, in float64, on a random input.

Beside it Torch-Pruning, as its README shows it: ``BasePruner`` with ``MagnitudeImportance``, the classifier's last
layer left alone, and the share of channels that halves a plain network's arithmetic (0.293), with no hints for single
architectures (it has some for attention). It works on modules, needs no export, and does not check its result; here it
counts as handled when the pruned network runs and its outputs have their old shapes. What is left is counted for both
by the same counter, on the exported graph.

Bounds: not one network comes out wrong, at most three are declined, and ResNet-50 takes less than 10 s, oracle
included.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from typing import Any

from benchmarks.fresh import run_fresh
from benchmarks.record import add_output, document, markdown_table, publish

NAME = "pruning"
KEEP = 0.5
OWN = ("unet", "detector", "crnn")
# fmt: off
TIMM = (
    "resnet18", "resnet50", "resnet26d", "resnext50_32x4d", "resnext26ts", "seresnet33ts", "seresnext26d_32x4d",
    "skresnet18", "res2net50_26w_4s", "res2next50", "ecaresnet26t", "cspresnet50", "cspdarknet53", "darknet53",
    "densenet121", "dla34", "dla46_c", "dpn48b", "efficientnet_b0", "efficientnet_lite0", "tf_efficientnetv2_b0",
    "mobilenetv1_100", "mobilenetv2_100", "mobilenetv3_large_100", "mobilenetv3_small_100",
    "mobilenetv4_conv_small", "mnasnet_100", "fbnetc_100", "spnasnet_100", "mixnet_s", "hardcorenas_a",
    "ghostnet_100", "regnetx_002", "regnety_002", "regnety_008", "regnetz_b16", "repvgg_a0", "repghostnet_050",
    "rexnet_100", "tinynet_a", "lcnet_050", "lcnet_100", "vovnet39a", "ese_vovnet19b_dw", "hrnet_w18_small",
    "vgg11_bn", "vgg11", "inception_v3", "inception_v4", "xception41", "convnext_atto", "convnextv2_atto",
    "poolformer_s12", "vit_tiny_patch16_224", "deit_tiny_patch16_224", "cait_xxs24_224",
    "swin_tiny_patch4_window7_224", "mobilevit_xxs", "mobilevitv2_050", "edgenext_xx_small", "efficientformer_l1",
    "efficientformerv2_s0", "levit_128s", "mixer_s32_224", "resmlp_12_224", "gmlp_ti16_224", "pvt_v2_b0",
    "fastvit_t8", "repvit_m0_9", "starnet_s1", "inception_next_atto", "mambaout_femto", "xcit_nano_12_p16_224",
    "visformer_tiny", "selecsls42b", "gernet_s", "coat_tiny",
)
# fmt: on
_CLOSE = 1.05
_MOST_DECLINED = 3
_RESNET50_S = 10.0
_LIMIT_S = 900.0


def findings(networks: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns the bounds that are missed, each as a sentence."""
    ours = {name: item["edgekit"] for name, item in networks.items()}
    missed = [f"{name} came out wrong" for name, item in ours.items() if item["status"] == "wrong"]
    missed += [f"{name} failed: {item['reason']}" for name, item in ours.items() if item["status"] == "failed"]
    declined = [name for name, item in ours.items() if item["status"] == "declined"]
    if len(declined) > _MOST_DECLINED:
        missed.append(f"{len(declined)} were declined: {', '.join(declined)}")
    slow = ours.get("resnet50", {}).get("seconds")
    if slow is not None and slow >= _RESNET50_S:
        missed.append(f"ResNet-50 took {slow:.1f} s")
    return missed


def to_markdown(result: Mapping[str, Any]) -> str:
    """Renders a recorded result."""
    networks = result["results"]["networks"]
    rows = [
        (name, *_cells(item["edgekit"]), _error(item["edgekit"]), *_cells(item["torch_pruning"]))
        for name, item in networks.items()
    ]
    heads = (
        "network",
        "edgekit: MACs left",
        "s",
        "difference in float64",
        "Torch-Pruning: MACs left",
        "s, without a check",
    )
    ours = [item["edgekit"] for item in networks.values() if item["edgekit"]["status"] == "exact"]
    keep = result["settings"]["keep"]
    short = sum(item["macs_left"] > _CLOSE * keep for item in ours)
    runs = sum(item["torch_pruning"]["status"] == "runs" for item in networks.values())
    found = result["results"]["findings"]
    return (
        f"{markdown_table(heads, rows)}\n\nExact: {len(ours)} of {len(networks)}; {len(ours) - short} of them reach "
        f"{keep:.0%} of the MACs, {short} keep more, because the rest of their channels cannot leave. Torch-Pruning "
        f"{result['settings']['torch_pruning']} gives a network that runs on {runs} of {len(networks)}. Bounds: "
        + ("kept." if not found else f"MISSED: {'; '.join(found)}.")
    )


def _cells(item: Mapping[str, Any]) -> tuple[str, str]:
    if item["status"] not in ("exact", "runs"):
        return item["status"], "-"
    left = item["macs_left"]
    return ("not counted" if left is None else f"{left:.3f}"), f"{item['seconds']:.1f}"


def _error(item: Mapping[str, Any]) -> str:
    return f"{item['difference']:.0e}" if item["status"] == "exact" else "-"


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Runs one fresh process for each network."""

    def run(name: str) -> dict[str, Any]:
        task = {"network": name, "own": name in OWN, "keep": options.keep, "threads": 1}
        facts = run_fresh("pruning_worker", task, limit_s=_LIMIT_S)
        print(f"{name}: {facts}", flush=True)
        return facts

    with ThreadPoolExecutor(options.jobs) as pool:
        made = dict(zip(options.networks, pool.map(run, options.networks), strict=True))
    return {"networks": made, "findings": findings(made)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=[*TIMM, *OWN], metavar="NAME")
    parser.add_argument("--keep", type=float, default=KEEP, help="share of the multiply-accumulates to keep")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side, one thread each")
    add_output(parser, NAME)
    options = parser.parse_args()
    load_average = os.getloadavg()[0]
    settings = {"keep": options.keep, "jobs": options.jobs, "torch_pruning": metadata.version("torch-pruning")}
    result = document(NAME, settings=settings, load_average=load_average, results=measure(options))
    publish(result, to_markdown(result), options.output)
    return 1 if result["results"]["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
