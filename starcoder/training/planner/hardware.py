"""GPUs and links, one table with sources: makers' figures, and how much of them matrix products and collectives reach.

Makers' figures are those of the data sheets, dense (no 2:4 sparsity), bf16 with fp32 accumulation. `achieved` is the
rate of the best large bf16 matrix product as a share of it, measured by stas00/ml-engineering,
compute/accelerator/README.md ("MAMF", mean of 100); 0.8 where nobody measured a GPU there. Memory is what CUDA reports.
"""

from dataclasses import dataclass

import torch

PCIE4 = 31e9  # bytes/s a direction of 16 lanes (ml-engineering, network/README.md)
# seconds of a step of a ring, through a link in the node and through the network (NCCL, src/include/tuning.h, "Simple")
LINK_LATENCY, NETWORK_LATENCY = 3.4e-6, 14e-6


@dataclass(frozen=True)
class Gpu:
    """One GPU, and the node and network that it usually comes with.

    Attributes:
        name: part of what CUDA calls it.
        flops: dense bf16 FLOP/s.
        memory: bytes that CUDA reports; makers' GB are GiB here but for the ECC and firmware they keep.
        memory_bandwidth: bytes/s of its memory.
        link_bandwidth: bytes/s in each direction to the other GPUs of its node.
        watts: of the board.
        node_network: bytes/s in each direction between two nodes, for all GPUs of a node together.
        achieved: share of `flops` that the best matrix product reaches.
        hopper: whether attention kernels are those of Hopper's generation.
    """

    name: str
    flops: float
    memory: float
    memory_bandwidth: float
    link_bandwidth: float
    watts: float
    node_network: float
    achieved: float
    hopper: bool = False


GPUS = {
    # NVIDIA A100 data sheet (2021); p4d and p4de nodes: 400 Gb/s EFA (AWS, "P4d instances deep dive", 2020). The
    # paper's GPUs are those of p4de.
    "a100-40gb": Gpu("A100-SXM4-40GB", 312e12, 39.4 * 2**30, 1555e9, 300e9, 400, 50e9, 0.869),
    "a100-80gb": Gpu("A100-SXM4-80GB", 312e12, 79.1 * 2**30, 2039e9, 300e9, 400, 50e9, 0.869),
    # NVIDIA H100 and H200 data sheets; p5 nodes: 3,200 Gb/s (AWS EC2 guide), as DGX H100 (8 x 400 Gb/s).
    "h100-80gb": Gpu("H100 80GB HBM3", 989e12, 79.1 * 2**30, 3350e9, 450e9, 700, 400e9, 0.803, hopper=True),
    "h200": Gpu("H200", 989e12, 139.8 * 2**30, 4800e9, 450e9, 700, 400e9, 0.803, hopper=True),
    # The part of torchtitan's December 2024 measurements: HBM2e at 2.4 TB/s, limited to 500 W.
    "h100-96gb": Gpu("H100 96GB", 989e12, 94.5 * 2**30, 2400e9, 450e9, 500, 400e9, 0.803, hopper=True),
    # Data sheets; no NVLink, so GPUs of a node talk over PCIe.
    "l40s": Gpu("L40S", 362e12, 44.4 * 2**30, 864e9, PCIE4, 350, 12.5e9, 0.8),
    "rtx4090": Gpu("RTX 4090", 165.2e12, 23.5 * 2**30, 1008e9, PCIE4, 450, 3.1e9, 0.8),
    "a10g": Gpu("A10G", 70e12, 22.1 * 2**30, 600e9, PCIE4, 300, 12.5e9, 0.8),
}


def peak_of_device(device: torch.device) -> float | None:
    """Dense bf16 FLOP/s of a CUDA device that the table knows."""
    name = torch.cuda.get_device_name(device)
    return next((gpu.flops for gpu in GPUS.values() if gpu.name in name), None)
