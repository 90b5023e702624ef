"""Protocols: the definition, and the named ones."""

from covis.protocols.definition import FORMAT, MOST, VERSION, Protocol
from covis.protocols.named import OFFICIAL_KS, OPTIONS, PROTOCOLS, SUBTASKS, TASKS, protocol

__all__ = ["FORMAT", "MOST", "OFFICIAL_KS", "OPTIONS", "PROTOCOLS", "SUBTASKS", "TASKS", "VERSION", "Protocol", "protocol"]
