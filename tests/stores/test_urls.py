"""One URL names a store."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest

from recollect import InvalidArgument, Message, StoreUnavailable, open_async_store, open_store
from recollect.stores.urls import check_url, duration

HELLO = [Message.user("hello")]


def test_three_slashes_name_a_file_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with open_store("sqlite:///recollect.db") as store:
        store.append("greeting", HELLO)
    assert (tmp_path / "recollect.db").is_file()


def test_four_slashes_name_a_file_anywhere(tmp_path: Path) -> None:
    with open_store(f"sqlite:///{tmp_path}/recollect.db") as store:
        store.append("greeting", HELLO)
    assert (tmp_path / "recollect.db").is_file()


def test_a_store_keeps_its_file_whatever_folder_the_process_goes_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with open_store("sqlite:///recollect.db") as store:
        monkeypatch.chdir(tmp_path / "elsewhere")
        store.append("greeting", HELLO)
    with open_store(f"sqlite:///{tmp_path}/recollect.db") as store:
        assert store.get("greeting").message_count == 1
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("name", ["with space.db", "ünï.db", "50%.db", "what?.db", "a#b.db"])
def test_a_name_of_any_characters_is_written_as_in_every_url(tmp_path: Path, name: str) -> None:
    with open_store(f"sqlite:///{tmp_path}/{quote(name)}"):
        assert (tmp_path / name).is_file()


def test_memory_is_each_stores_own_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with open_store("sqlite:///:memory:") as one, open_store("sqlite:///:memory:") as other:
        one.create("mine")
        other.create("mine")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.anyio
async def test_an_async_store_has_the_same_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/recollect.db"
    with open_store(url) as store:
        appended = store.append("greeting", HELLO)
    async with open_async_store(url) as same:
        assert (await same.get("greeting")).revision == appended.revision


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


WHERE = "write sqlite:///PATH, such as sqlite:///recollect.db, or dynamodb://TABLE."
SLASHES = (
    "names no file; write sqlite:///recollect.db (three slashes) for one in the working directory, "
    "sqlite:////var/lib/recollect.db (four) for any other."
)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("", f"The store '' is of no known kind; {WHERE}"),
        ("recollect.db", f"The store 'recollect.db' is of no known kind; {WHERE}"),
        ("postgres://host/db", f"The store 'postgres://host/db' is of no known kind; {WHERE}"),
        ("sqlite:", f"The store 'sqlite:' {SLASHES}"),
        ("sqlite:///", f"The store 'sqlite:///' {SLASHES}"),
        ("sqlite://recollect.db", f"The store 'sqlite://recollect.db' {SLASHES}"),
        ("sqlite://host/recollect.db", f"The store 'sqlite://host/recollect.db' {SLASHES}"),
        ("sqlite:///a.db#b", f"The store 'sqlite:///a.db#b' {SLASHES}"),
        ("sqlite:///a%00.db", f"The store 'sqlite:///a%00.db' {SLASHES}"),
        ("sqlite://[a.db", "The store 'sqlite://[a.db' is no URL: Invalid IPv6 URL."),
        (
            "sqlite:///a.db?mode=ro",
            "The store 'sqlite:///a.db?mode=ro' has 'mode'; only expire_after is known.",
        ),
        ("sqlite:///a?a=1", "The store 'sqlite:///a?a=1' has 'a'; only expire_after is known."),
        (
            "sqlite:///a.db?expire_after=month",
            "'month' is no time; write a number and s, m, h, d or w: 30d.",
        ),
        (
            "sqlite:///a.db?expire_after",
            "'' is no time; write a number and s, m, h, d or w: 30d.",
        ),
        (
            "sqlite:///a.db?expire_after=0s",
            "The time '0s' is 0:00:00; it must be a second to 36,500 days.",
        ),
    ],
)
@pytest.mark.parametrize("use", [open_store, open_async_store, check_url])
def test_a_url_that_names_no_store_is_refused_with_what_to_write(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    use: Callable[[str], object],
    url: str,
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidArgument) as refused:
        use(url)
    assert str(refused.value) == sentence
    assert list(tmp_path.iterdir()) == []


def test_checking_a_url_opens_nothing(tmp_path: Path) -> None:
    check_url(f"sqlite:///{tmp_path}/recollect.db?expire_after=30d")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_not_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="could not be opened"):
        open_store(f"sqlite:///{tmp_path}")


@pytest.mark.parametrize(
    ("query", "argument", "lifetime"),
    [
        ("", None, None),
        ("?expire_after=30d", None, timedelta(days=30)),
        ("", timedelta(hours=1), timedelta(hours=1)),
        ("?expire_after=90s", timedelta(hours=1), timedelta(seconds=90)),
    ],
    ids=["neither", "in the URL", "as argument", "both: the URL says"],
)
def test_how_long_conversations_live_is_said_by_the_url_or_the_argument(
    query: str, argument: timedelta | None, lifetime: timedelta | None
) -> None:
    with open_store(f"sqlite:///:memory:{query}", expire_after=argument) as store:
        made = store.create()
    assert made.expires_at == (lifetime and made.updated_at + lifetime)


@pytest.mark.anyio
async def test_an_async_store_takes_the_lifetime_too() -> None:
    hour = timedelta(hours=1)
    async with open_async_store("sqlite:///:memory:?expire_after=1h") as store:
        made = await store.create()
        assert made.expires_at == made.updated_at + hour
    async with open_async_store("sqlite:///:memory:", expire_after=hour) as store:
        made = await store.create()
        assert made.expires_at == made.updated_at + hour


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("1s", timedelta(seconds=1)),
        ("90s", timedelta(seconds=90)),
        ("15m", timedelta(minutes=15)),
        ("12h", timedelta(hours=12)),
        ("30d", timedelta(days=30)),
        ("030d", timedelta(days=30)),
        (" 30d ", timedelta(days=30)),
        ("2w", timedelta(weeks=2)),
        ("36500d", timedelta(days=36_500)),
    ],
)
def test_a_time_is_a_number_and_a_unit(text: str, time: timedelta) -> None:
    assert duration(text) == time


@pytest.mark.parametrize(
    "text",
    ["", "30", "d", "30 d", "-1d", "1.5h", "30D", "30days", "1h30m", "٣d", "0s", "36501d"]
    + [f"{10**digits}{unit}" for digits in (7, 8, 9, 20) for unit in "dw"],
)
def test_anything_else_is_no_time(text: str) -> None:
    with pytest.raises(InvalidArgument, match=r"write a number|must be a second"):
        duration(text)
