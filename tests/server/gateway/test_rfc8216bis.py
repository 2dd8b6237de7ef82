"""HLS by the rules of draft-pantos-hls-rfc8216bis: each that applies to our live streams, by its section.

What a playlist may say is held against every playlist of several streams, as players see them while parts
come.
"""

import math
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import pairwise

import pytest

from server.gateway.hls import playlist
from tests.server.gateway.hls_streams import LOOK_S, STREAMS, Playlist, attributes, moments

SEGMENT_TAGS = ("EXTINF", "EXT-X-DISCONTINUITY", "EXT-X-MAP", "EXT-X-PROGRAM-DATE-TIME", "EXT-X-PART")
MEDIA_TAGS = (
    *("EXT-X-TARGETDURATION", "EXT-X-MEDIA-SEQUENCE", "EXT-X-DISCONTINUITY-SEQUENCE", "EXT-X-ENDLIST"),
    *("EXT-X-PART-INF", "EXT-X-SERVER-CONTROL"),
)


def every(name: str) -> Iterator[Playlist]:
    for moment in moments(name):
        yield from moment.playlists


def reloads(name: str) -> Iterator[tuple[Playlist, Playlist]]:
    """Each playlist with the one before it, while the variant is played."""
    for before, after in pairwise(moments(name)):
        for one in before.playlists:
            yield from ((one, other) for other in after.playlists if other.variant == one.variant)


Rule = Callable[[str], None]
RULES: dict[str, Rule] = {}


def rule(section: str) -> Callable[[Rule], Rule]:
    def kept(check: Rule) -> Rule:
        RULES[f"{section} {check.__name__.replace('_', ' ')}"] = check
        return check

    return kept


@rule("4.1")
def lines_are_tags_or_names(name: str) -> None:
    for one in every(name):
        assert one.text.endswith("\n")
        assert "\r" not in one.text
        for line in one.text.splitlines():
            assert re.fullmatch(r"#EXT[A-Z0-9-]*(:\S.*)?|[A-Za-z0-9._-]+", line), line


@rule("4.4.1.1")
def extm3u_is_the_first_line(name: str) -> None:
    for moment in moments(name):
        for text in (moment.multivariant, *(one.text for one in moment.playlists + moment.deltas)):
            assert text.startswith("#EXTM3U\n")


@rule("4.4.1.2, 6.2.1, 8")
def version_is_what_the_tags_take_and_no_more(name: str) -> None:
    for moment in moments(name):
        for one in moment.playlists + moment.deltas:
            assert one.value("EXT-X-VERSION") == ("9" if one.values("EXT-X-SKIP") else "6")
        assert moment.multivariant.count("#EXT-X-VERSION:") == 1


@rule("4.4.2.1")
def independent_segments_is_said_once_for_all(name: str) -> None:
    for moment in moments(name):
        assert moment.multivariant.count("#EXT-X-INDEPENDENT-SEGMENTS\n") == 1
        assert not any(one.values("EXT-X-INDEPENDENT-SEGMENTS") for one in moment.playlists)


@rule("4.4.3")
def media_playlist_tags_come_once_and_in_no_multivariant_playlist(name: str) -> None:
    for moment in moments(name):
        for one in moment.playlists + moment.deltas:
            assert all(len(one.values(tag)) <= 1 for tag in MEDIA_TAGS)
        tags = re.findall(r"#([A-Z0-9-]+)", moment.multivariant)
        assert not set(tags) & {*MEDIA_TAGS, *SEGMENT_TAGS}


@rule("4.4.3.1, 6.2.1")
def no_segment_is_longer_than_the_target_duration_which_never_changes(name: str) -> None:
    for one in every(name):
        assert all(math.floor(row.duration_s + 0.5) <= one.target_s for row in one.rows)
    assert len({one.target_s for one in every(name)}) == 1
    assert all(one.target_s >= 1 for one in every(name))


@rule("4.4.3.2, 4.4.3.3")
def sequences_stand_before_the_first_segment(name: str) -> None:
    for one in every(name):
        names = [tag for tag, _ in one.tags]
        first = min(names.index(tag) for tag in SEGMENT_TAGS if tag in names)
        assert names.index("EXT-X-MEDIA-SEQUENCE") < first
        assert names.index("EXT-X-DISCONTINUITY-SEQUENCE") < first


@rule("4.4.3.7, 4.4.4.9")
def parts_are_no_longer_than_their_target_and_few_are_much_shorter(name: str) -> None:
    for one in every(name):
        for row in one.all:
            assert all(part.duration_s <= one.part_target_s for part in row.parts)
        # Where a picture was held the target is that part's, while it is listed.
        if one.part_target_s <= 0.334 or name == "a picture in half a second":
            for row in one.all:
                short = [p for p in row.parts[:-1] if p.duration_s < 0.85 * one.part_target_s - 1e-5]
                last = row.parts[-1:] if row is one.growing else []
                assert all(part.independent for part in short if part not in last), (row, one.part_target_s)


@rule("4.4.3.8")
def hold_back_and_skip_boundary_are_long_enough(name: str) -> None:
    for one in every(name):
        assert one.control("CAN-SKIP-UNTIL") >= 6 * one.target_s
        assert one.control("PART-HOLD-BACK") >= 2 * one.part_target_s
        held = name == "a picture is held" and one.part_target_s > 0.334
        assert held or one.control("PART-HOLD-BACK") >= 3 * one.part_target_s - 1e-5


@rule("4.4.4")
def no_media_playlist_has_a_tag_of_multivariant_playlists(name: str) -> None:
    for one in every(name):
        assert not {"EXT-X-STREAM-INF", "EXT-X-MEDIA"} & {tag for tag, _ in one.tags}


@rule("4.4.4.1")
def durations_add_up_without_an_error_that_is_seen(name: str) -> None:
    for one in every(name):
        for row in one.rows:
            assert row.duration_s > 0
            if row.parts:
                assert sum(p.duration_s for p in row.parts) == pytest.approx(row.duration_s, abs=2e-4)


@rule("4.4.4.3, 6.2.1")
def another_size_or_timeline_is_a_discontinuity(name: str) -> None:
    for one in every(name):
        for before, after in pairwise(one.all):
            assert after.marked or after.init == before.init
            assert before.starts
            assert after.starts
            step_s = (after.starts - before.starts).total_seconds()
            assert after.marked or step_s == pytest.approx(before.duration_s, abs=0.002)


@rule("4.4.4.5")
def each_segment_has_an_init_segment_that_can_be_had(name: str) -> None:
    for moment in moments(name)[-1:]:
        for one in moment.playlists:
            for row in one.all:
                assert (moment.source.sink.of(row.init).find(row.init) or b"")[4:8] == b"ftyp"


@rule("4.4.4.6, 6.2.1, B.1")
def each_segment_has_its_date_to_the_millisecond_and_none_twice(name: str) -> None:
    for one in every(name):
        dates = one.values("EXT-X-PROGRAM-DATE-TIME")
        assert len(dates) == len(one.all)
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", date) for date in dates)
        for before, after in pairwise(one.all):
            assert before.starts
            assert after.starts
            assert after.starts - before.starts >= timedelta(seconds=before.duration_s - 0.002)


@rule("4.4.4.9")
def tags_of_a_segment_stand_before_its_first_part(name: str) -> None:
    for one in every(name):
        begun = False
        for tag, _ in one.tags:
            if tag == "EXT-X-PART":
                begun = True
            elif tag == "EXTINF":
                begun = False
            else:
                assert not begun or tag not in SEGMENT_TAGS
            if tag in ("EXT-X-PRELOAD-HINT", "EXT-X-RENDITION-REPORT", "EXT-X-ENDLIST"):
                begun = False


@rule("4.4.4.9")
def each_segment_begins_with_a_part_that_is_independent(name: str) -> None:
    for one in every(name):
        assert all(row.parts[0].independent for row in one.all if row.parts)


@rule("4.4.5.3, 6.2.6")
def one_part_is_hinted_and_that_is_the_one_that_comes(name: str) -> None:
    for one in every(name):
        hints = one.values("EXT-X-PRELOAD-HINT")
        assert len(hints) <= 1
        assert not (hints and one.ended)
        assert all(attributes(hint)["TYPE"] == "PART" for hint in hints)
    smooth = ("usual", "10 fps", "29.97 fps", "long", "key frames for viewers", "a picture is held")
    if name in smooth:
        for before, after in reloads(name):
            new = {p.name for row in after.all for p in row.parts}
            new -= {p.name for row in before.all for p in row.parts}
            if new and not before.ended:
                hint = attributes(before.value("EXT-X-PRELOAD-HINT"))["URI"]
                assert hint in new


@rule("4.4.5.4, B.1")
def each_playlist_reports_how_far_all_others_are(name: str) -> None:
    for moment in moments(name):
        ends = {
            playlist.name_of(one.variant): (one.all[-1].number, len(one.all[-1].parts) - 1)
            for one in moment.playlists
        }
        for one in moment.playlists:
            reports = [attributes(value) for value in one.values("EXT-X-RENDITION-REPORT")]
            if one.ended:
                continue
            others = re.findall(r"^\w+\.m3u8$", moment.multivariant, re.M)
            others.remove(playlist.name_of(one.variant))
            assert [report["URI"] for report in reports] == others
            for report in reports:
                said = int(report["LAST-MSN"]), int(report["LAST-PART"])
                assert said == ends.get(report["URI"], said)


@rule("4.4.6.2, 6.2.4")
def variants_say_all_that_a_player_chooses_by(name: str) -> None:
    for moment in moments(name):
        lines = moment.multivariant.splitlines()
        streams = [at for at, line in enumerate(lines) if line.startswith("#EXT-X-STREAM-INF:")]
        assert streams
        for at in streams:
            said = attributes(lines[at].partition(":")[2])
            assert int(said["BANDWIDTH"]) >= int(said.get("AVERAGE-BANDWIDTH", 0)) > -1
            assert re.fullmatch(r"\d+x\d+", said["RESOLUTION"])
            assert re.fullmatch(r"\d+\.\d{3}", said["FRAME-RATE"])
            formats = {one.partition(".")[0] for one in said["CODECS"].split(",")}
            assert formats == ({"avc1", "mp4a"} if moment.source.sound else {"avc1"})
            assert re.fullmatch(r"\w+\.m3u8", lines[at + 1])


@rule("6.2.1")
def playlists_change_by_what_is_appended_and_removed_in_order(name: str) -> None:
    for before, after in reloads(name):
        old = {row.number: row for row in before.rows}
        for row in after.rows:
            if row.number in old:
                was = old[row.number]
                assert (row.name, row.duration_s, row.init, row.starts, row.discontinuity) == (
                    was.name, was.duration_s, was.init, was.starts, was.discontinuity,
                )  # fmt: skip
                if row.parts:
                    assert row.parts == was.parts
        if before.growing and after.rows and before.growing.number in {row.number for row in after.all}:
            (same,) = (row for row in after.all if row.number == before.growing.number)
            assert same.parts[: len(before.growing.parts)] == before.growing.parts


@rule("6.2.1")
def a_segment_comes_in_time_and_so_does_a_part(name: str) -> None:
    if name in ("nobody for a while", "a worker dies", "variants", "another size"):
        return  # where there is nothing new for a while
    segment_s = part_s = moments(name)[0].at_s
    for before, after in pairwise(moments(name)):
        if after.whole.ended:
            return
        rows = before.whole.all, after.whole.all
        if len(after.whole.rows) and after.whole.rows[-1].number > before.whole.rows[-1].number:
            segment_s = after.at_s
        assert after.at_s - segment_s <= 1.5 * after.whole.target_s
        was, now = ([part.name for row in all for part in row.parts][-1:] for all in rows)
        if now != was:
            part_s = after.at_s
        assert after.at_s - part_s <= after.whole.part_target_s + LOOK_S, "as finely as is looked"


@rule("6.2.2")
def numbers_count_what_is_removed_and_never_go_back(name: str) -> None:
    for before, after in reloads(name):
        assert after.all[0].number >= before.all[0].number
        assert after.all[0].discontinuity >= before.all[0].discontinuity - before.all[0].marked
        numbers = [row.number for row in after.all]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


@rule("6.2.2")
def a_playlist_is_never_cut_below_three_target_durations(name: str) -> None:
    for before, after in reloads(name):
        removed = after.all[0].number - before.all[0].number
        if 0 < removed < len(before.rows):  # else nobody played it, or it began anew
            assert after.duration_s >= 3 * after.target_s


@rule("6.2.2")
def parts_are_told_at_the_end_only_and_go_in_their_order(name: str) -> None:
    for one in every(name):
        behind_s = 0.0
        for row in reversed(one.all):
            assert not row.parts or behind_s < 3 * one.target_s
            behind_s += row.duration_s or sum(part.duration_s for part in row.parts)
        told = [bool(row.parts) for row in one.all]
        assert told == sorted(told)


@rule("6.2.2")
def what_has_left_the_playlist_can_be_had_for_long_enough(name: str) -> None:
    if name == "nobody for a while":
        return
    at_s, last_told = 0.0, dict[str, tuple[float, float]]()
    source = STREAMS[name][0]
    for moment in moments(name):
        at_s = moment.at_s
        for row in moment.whole.rows:
            first_s = last_told.get(row.name, (at_s, 0.0))[0]
            last_told[row.name] = first_s, row.duration_s + moment.whole.duration_s
        for row in moment.whole.all:
            last_told |= {part.name: (at_s, 3.0 * moment.whole.target_s) for part in row.parts}
    for found, (since_s, for_s) in last_told.items():
        if since_s + for_s > at_s:
            assert source.sink.of(found).find(found) is not None, found


@rule("6.2.4")
def variants_match_in_numbers_dates_and_discontinuities(name: str) -> None:
    for moment in moments(name):
        rows = {row.number: row for row in moment.whole.all}
        for one in moment.playlists[1:]:
            assert one.target_s == moment.whole.target_s
            for row in one.rows:
                other = rows.get(row.number)
                if other is not None and other.duration_s:
                    assert (row.starts, row.discontinuity) == (other.starts, other.discontinuity)
                    assert row.duration_s == other.duration_s


@rule("6.2.4")
def server_control_is_the_same_in_all_variants(name: str) -> None:
    for moment in moments(name):
        assert len({one.value("EXT-X-SERVER-CONTROL") for one in moment.playlists}) == 1


@rule("6.2.5.1")
def a_delta_update_leaves_out_what_is_older_and_nothing_else(name: str) -> None:
    for moment in moments(name):
        for full, delta in zip(moment.playlists, moment.deltas, strict=True):
            skips = delta.values("EXT-X-SKIP")
            ends_s = sum(row.duration_s or sum(p.duration_s for p in row.parts) for row in full.all)
            older = 0
            for row in full.rows:
                ends_s -= row.duration_s
                older += ends_s > full.control("CAN-SKIP-UNTIL") + 1e-3
            if full.ended or not older:
                assert not skips
                assert delta.text == full.text
                continue
            assert attributes(skips[0]) == {"SKIPPED-SEGMENTS": str(older)}
            assert [row.name for row in delta.rows] == [row.name for row in full.rows[older:]]
            assert [row.parts for row in delta.all] == [row.parts for row in full.all[older:]]


@rule("6.2.1")
def what_has_ended_says_so(name: str) -> None:
    ended = [one.ended for one in every(name)]
    assert ended == sorted(ended)
    last = moments(name)[-1]
    assert all(one.ended == last.source.sink.segments.ended for one in last.playlists)


@rule("B.1")
def players_may_wait_for_what_comes(name: str) -> None:
    for one in every(name):
        assert attributes(one.value("EXT-X-SERVER-CONTROL"))["CAN-BLOCK-RELOAD"] == "YES"


@pytest.mark.parametrize("section", RULES)
def test_playlists_keep_the_rule(section: str):
    for name in STREAMS:
        try:
            RULES[section](name)
        except AssertionError as exc:
            raise AssertionError(f"{section}; stream {name!r}: {exc}") from exc


def test_the_streams_meet_every_rule():
    """A rule of delta updates, discontinuities or variants says nothing where there is none."""
    assert any(delta.values("EXT-X-SKIP") for m in moments("long") for delta in m.deltas)
    assert max(len(m.playlists) for m in moments("variants")) == 3
    assert any(one.values("EXT-X-DISCONTINUITY") for one in every("a worker dies"))
    assert len({row.init for one in every("another size") for row in one.all}) == 2
    assert max(one.part_target_s for one in every("a picture is held")) > 0.334
