"""One certificate for all clients, and a handshake each: none takes over what another has agreed."""

import re

from server.gateway.webrtc import certificate
from tests.server.gateway.scripted_gateway import Viewer, gateway


def fingerprints(viewer: Viewer) -> set[str]:
    return set(re.findall(r"a=fingerprint:sha-256 (\S+)", viewer.response.text))


async def test_all_viewers_of_a_day_are_shown_one_certificate_and_have_keys_of_their_own(monkeypatch):
    async with gateway() as served, Viewer(served) as one, Viewer(served) as other:
        await one.sees(3)
        await other.sees(3)
        assert fingerprints(one) == fingerprints(other)
        keys = [bytes(peer._dtls._ssl.export_keying_material(b"test", 16)) for peer in served.peers()]
        assert keys[0] != keys[1]
        monkeypatch.setattr(certificate, "_RENEWED_AFTER_S", 0.0)
        async with Viewer(served) as later:
            await later.sees(3)
            assert not fingerprints(later) & fingerprints(one)
            await one.sees(len(one.frames[0]) + 3)
