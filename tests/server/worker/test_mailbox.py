import threading
import time

import pytest

from server.worker.process.mailbox import Closed, Mailbox


def test_live_mailbox_drops_the_oldest_and_says_which():
    dropped = []
    mailbox = Mailbox[int](2, on_drop=dropped.append)
    for item in range(5):
        mailbox.put(item)
    assert dropped == [0, 1, 2]
    assert len(mailbox) == 2
    assert [mailbox.take(), mailbox.take()] == [3, 4]


def test_offline_mailbox_makes_the_sender_wait():
    mailbox = Mailbox[int](2, on_drop=None)
    sent = []

    def send():
        for item in range(10):
            mailbox.put(item)
            sent.append(item)
        mailbox.close()

    thread = threading.Thread(target=send)
    thread.start()
    for expected in range(10):
        assert mailbox.take(5) == expected
        assert len(sent) - (expected + 1) <= 3, "two in the box, one on its way"
    thread.join()
    with pytest.raises(Closed):
        mailbox.take()


def test_what_is_in_a_closed_mailbox_can_still_be_taken():
    mailbox = Mailbox[int](2, on_drop=None)
    mailbox.put(1)
    mailbox.close()
    assert mailbox.take() == 1
    with pytest.raises(Closed):
        mailbox.take()


def test_what_is_in_an_aborted_mailbox_is_gone():
    mailbox = Mailbox[int](2, on_drop=None)
    mailbox.put(1)
    mailbox.abort()
    assert len(mailbox) == 0
    with pytest.raises(Closed):
        mailbox.take()
    with pytest.raises(Closed):
        mailbox.put(2)


@pytest.mark.parametrize("end", [Mailbox.close, Mailbox.abort])
def test_its_end_wakes_a_sender_and_a_receiver(end):
    full, empty = Mailbox[int](1, on_drop=None), Mailbox[int](1, on_drop=None)
    full.put(0)
    ended = []

    def wait(action):
        with pytest.raises(Closed):
            action()
        ended.append(action)

    threads = [threading.Thread(target=wait, args=(a,)) for a in (lambda: full.put(1), empty.take)]
    for thread in threads:
        thread.start()
    end(full)
    end(empty)
    for thread in threads:
        thread.join(5)
    assert len(ended) == 2


def test_taking_from_an_empty_mailbox_ends_with_the_timeout_and_not_before():
    started_s = time.monotonic()
    assert Mailbox[int](1, on_drop=None).take(timeout_s=0.05) is None
    assert time.monotonic() - started_s >= 0.05


def test_capacity_must_be_positive():
    with pytest.raises(ValueError, match="capacity = 0"):
        Mailbox[int](0, on_drop=None)
