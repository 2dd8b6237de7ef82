"""What a server answers by draft-pantos-hls-rfc8216bis, section by section."""

from server.wire.messages import JobImpossible
from tests.server.gateway.hls_streams import Playlist
from tests.server.gateway.scripted_gateway import gateway, until

# What is asked for, and the answer, by section. `msn` is the segment that grows, `part` its next one.
ASKED = [
    ("6.2.5.2: a segment is waited for", "_HLS_msn={msn}", 200),
    ("6.2.5.2: a part is waited for", "_HLS_msn={msn}&_HLS_part={part}", 200),
    ("6.2.5.2: a part beyond a segment's last is the next one's first", "_HLS_msn={last}&_HLS_part=99", 200),
    ("6.2.5.2: what has left the playlist is there", "_HLS_msn=1&_HLS_part=3", 200),
    ("6.2.5.2: the last segment plus two may be asked for, not three", "_HLS_msn={beyond}", 400),
    ("6.2.5.2: no further ahead than the Advance Part Limit", "_HLS_msn={msn}&_HLS_part=13", 400),
    ("6.2.5.2: nor in the segment that follows", "_HLS_msn={next}&_HLS_part=9", 400),
    ("6.2.5.2: a part without its segment is a bad request", "_HLS_part=1", 400),
    ("6.2.5.1: a delta update", "_HLS_skip=YES", 200),
    ("6.2.5.1: of version 2, without date ranges", "_HLS_msn={msn}&_HLS_part={part}&_HLS_skip=v2", 200),
    ("6.2.5: directives that are unknown", "_HLS_other=1", 200),
]


async def test_requests_are_answered_by_the_rules():
    async with gateway(hls={"segment_s": 2.0}) as served:
        await served.in_state("running")

        async def ask(query: str = ""):
            return await served.http.get(f"/hls/demo/media.m3u8{query and '?'}{query}", timeout=20)

        for section, query, status in ASKED:
            now = Playlist((await ask()).text)
            last = now.rows[-1].number
            part = len(now.growing.parts) if now.growing else 0
            numbers = {"last": last, "msn": last + 1, "next": last + 2, "beyond": last + 3, "part": part}
            answer = await ask(query.format(**numbers))
            assert answer.status_code == status, (section, answer.text)
            if status == 400:
                assert answer.headers["Content-Type"] == "application/problem+json"
                continue
            got = Playlist(answer.text)
            if "_HLS_msn={msn}" in query:
                there = [row for row in got.all if row.number >= last + 1]
                assert there, section
                if "_HLS_part" in query:
                    assert there[0].number > last + 1 or len(there[0].parts) > part or there[0].name, section
                else:
                    assert there[0].name, section
            if "_HLS_msn={last}" in query:
                assert got.all[-1].number > last, section
            kept = answer.headers["Cache-Control"]
            assert kept == ("max-age=12" if "_HLS_msn" in query else "no-cache"), (section, kept)
            assert "Accept-Encoding" in answer.headers["Vary"]
            assert answer.headers["Content-Encoding"] == "gzip", "6.2.1, B.1"

        served.worker.say(JobImpossible(reason="the source has ended"))

        async def is_over() -> bool:
            return Playlist((await ask()).text).ended

        await until(is_over, "the stream has ended")
        whole = (await ask()).text
        for query in ("_HLS_msn=99999999999", "_HLS_msn=1&_HLS_part=99", "_HLS_skip=YES"):
            answer = await ask(query)
            assert (answer.status_code, answer.text) == (200, whole), "6.2.5: ignored where EXT-X-ENDLIST is"
