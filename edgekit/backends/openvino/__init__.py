"""OpenVINO: Intel CPUs, GPUs and NPUs, and ARM CPUs."""
