"""Where an actor is. Hosts import this, in a hurry: it imports little itself."""

import ray

from server.gateway.placement.nodes import node_name


def where() -> tuple[str, str, str]:
    """In an actor: its node's id, name and address."""
    node, address = ray.get_runtime_context().get_node_id(), ray.util.get_node_ip_address()
    return node, node_name(node, address), address
