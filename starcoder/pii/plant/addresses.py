"""Addresses of hosts and networks as they stand in code."""

from ipaddress import IPv4Address, IPv6Address
from random import Random

PUBLIC_DNS = ("8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "208.67.222.222")
"""Well-known servers: redaction leaves them, yet they are addresses."""

_COMMON = ("127.0.0.1", "0.0.0.0", "192.168.1.1", "192.168.0.1", "10.0.0.1", "192.168.1.100", "::1", "10.0.2.15")


def public_v4(random: Random) -> str:
    """A public IPv4 address."""
    while True:
        address = IPv4Address(random.randrange(1 << 24, 224 << 24))
        if address.is_global:
            return str(address)


def private_v4(random: Random) -> str:
    """An IPv4 address of a private network."""
    first, low, high = random.choice([(10, 0, 255), (172, 16, 31), (192, 168, 168)])
    return f"{first}.{random.randint(low, high)}.{random.randrange(256)}.{random.randrange(1, 255)}"


def v6(random: Random) -> str:
    """An IPv6 address, mostly with its zeros compressed."""
    prefix = random.choice(
        [0x2001 << 16 | 0xDB8, 0x2A01 << 16 | 0x4F8, 0x2607 << 16 | 0xF8B0, 0xFE80 << 16, 0xFD00 << 16]
    )
    high = prefix << 96 | random.randrange(1 << 16) << 80
    address = IPv6Address(high | random.randrange(1 << random.choice([8, 16, 64])))
    return address.exploded if random.random() < 0.15 else str(address)


def address(random: Random) -> str:
    """Any address: public, private, well-known or IPv6."""
    kind = random.choices([public_v4, private_v4, v6, None], [45, 25, 12, 18])[0]
    return kind(random) if kind else random.choice(_COMMON + PUBLIC_DNS)
