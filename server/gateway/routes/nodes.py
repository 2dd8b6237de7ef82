"""`/api/nodes`: the machines of the cluster that workers are on."""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, ConfigDict, Field

from server.gateway.auth.guard import Guard
from server.gateway.errors import Forbidden, NodeNotFound, Unauthorized, responses
from server.gateway.placement import Cluster

Amounts = Annotated[dict[str, float], Field(examples=[{"livesr_megapixels": 92.5, "GPU": 0.0}])]


class NodeView(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    name: str
    has: Amounts = Field(description="Of what hosts ask for: source pixels a second in millions, GPUs")
    free: Amounts = Field(description="What is left of it")
    streams: tuple[str, ...] = Field(description="Streams of this gateway whose worker is there")
    drained: bool = Field(description="No further stream starts there")


def router(cluster: Cluster | None, guard: Guard) -> APIRouter:
    routes = APIRouter(
        prefix="/api/nodes",
        tags=["Nodes"],
        responses=responses(Unauthorized, Forbidden),
        dependencies=[Depends(guard.needs("admin"))],
    )

    @routes.get("")
    async def list_nodes() -> list[NodeView]:
        """Machines of the cluster; none where workers are on the gateway's own."""
        return [NodeView.model_validate(node) for node in (cluster.nodes() if cluster else ())]

    @routes.post("/{node}/drain", responses=responses(NodeNotFound))
    async def drain_node(node: str) -> NodeView:
        """No further stream starts there. Those that are there stay until they are moved
        (`POST /api/streams/ID/move`), which `livesr drain` does."""
        return _drain(node, drained=True)

    @routes.delete("/{node}/drain", responses=responses(NodeNotFound))
    async def use_node(node: str) -> NodeView:
        """Streams may start there again."""
        return _drain(node, drained=False)

    def _drain(node: str, *, drained: bool) -> NodeView:
        try:
            if cluster is None:
                raise KeyError(node)
            cluster.drain(node, drained=drained)
        except KeyError:
            raise NodeNotFound(f"there is no node {node!r}") from None
        (found,) = [use for use in cluster.nodes() if use.name == node]
        return NodeView.model_validate(found)

    return routes
