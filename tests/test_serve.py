"""The web page: who may see it, and what a real browser shows of it."""

import csv
import dataclasses
import http.client
import io
import json
import re
import shutil
import socket
import time

import pytest

from edge.errors import SerError
from edge.events import Gap, SpeechEnd, Start, Status, Summary, Utterance
from edge.serve import PAGE, Page
from tests.test_terminal import LABELS, estimate

START = Start("2026-01-01T00:00:00+00:00", "test", LABELS, 100, 2.0, 0.25, {})
TOKEN = "a-token-of-some-length"


def utterance(start_s, end_s, label, uncertain=False):
    a, b = round(100 * start_s), round(100 * end_s)
    probs = dict.fromkeys(LABELS, 0.1) | {label: 0.8}
    return Utterance(100, b, a, b, label, 0.8, uncertain, probs, end_s - start_s, 3)


def status(at_s, speech=True, state="listening", message=None):
    n = round(at_s * 100)
    return Status(100, n, n, n, state, speech, -20.0, message, n, 0)


SESSION = [
    status(0, False, message="listening to USB microphone at 48000 Hz"),
    *(estimate(second, LABELS[second // 5 % 3]) for second in range(1, 12)),
    utterance(0.5, 6, "anger"),
    utterance(6.5, 11, "sadness", uncertain=True),
    SpeechEnd(100, 1100, 650, 1100),
    Gap(100, 1500, 1200, 1500, "the microphone was away"),
    estimate(18, "surprise"),
    status(18),
]


@pytest.fixture
def page():
    with Page("127.0.0.1", 0, None) as page:
        page.send(START, "")
        for event in SESSION:
            page.send(event, "USB microphone")
        yield page


@pytest.fixture
def guarded():
    with Page("127.0.0.1", 0, TOKEN) as page:
        yield page


def get(page, path="/", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", page.port, timeout=10)
    connection.request("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})
    response = connection.getresponse()
    if path == "/events":
        return response
    response.text = response.read().decode()
    return response


def stream(response, n):
    """Return ids and data of the first n server-sent events."""
    found = []
    fields = {}
    while len(found) < n:
        line = response.readline().decode().rstrip("\n")
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            found.append((fields.get("id"), json.loads(fields["data"])))
            fields = {}
    return found


def test_the_page_loads_nothing_from_elsewhere_and_may_not(page):
    response = get(page)
    assert response.status == 200
    assert not re.findall(r"(?:src|href)=\"(?!/|data:)", response.text)
    assert "//" not in re.sub(r"^\s*//.*$|;\s+//.*$", "", response.text, flags=re.M)
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("path", ["/", "/events", "/session.json", "/utterances.csv"])
def test_foreign_names_and_pages_are_refused(page, path):
    assert get(page, path, Host="evil.example").status == 421
    assert get(page, path, Origin="http://evil.example").status == 403
    assert get(page, path, Origin="null").status == 403
    own = f"localhost:{page.port}"
    assert get(page, path, Host=own, Origin=f"http://{own}").status == 200


def test_without_the_token_nothing_is_shown(guarded):
    for path in ("/", "/events", "/session.json", "/?token=wrong"):
        assert get(guarded, path).status == 403
    response = get(guarded, f"/?token={TOKEN}")
    assert (response.status, response.headers["location"]) == (303, "/")
    cookie = response.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert get(guarded, "/", Cookie=cookie.split(";")[0]).status == 200


def test_elsewhere_a_token_is_made_and_shown(capsys):
    with Page("0.0.0.0", 0, None) as page:
        assert len(page.token) >= 16
        assert f"?token={page.token}" in capsys.readouterr().err
        assert get(page, "/").status == 403
        assert get(page, "/", Cookie=f"ser_token={page.token}").status == 200
        assert get(page, "/", Cookie=f"ser_token={page.token}", Host="evil.example").status == 421


def test_any_token_can_be_opened_as_it_is_shown():
    token = "a b+c&d=e#f?g/h;i,ü\u20ac%41"
    with Page("127.0.0.1", 0, token) as page:
        response = get(page, page.url.removeprefix(f"http://127.0.0.1:{page.port}"))
        assert (response.status, response.headers["location"]) == (303, "/")
        cookie = response.headers["set-cookie"].split("; HttpOnly")[0]
        assert get(page, "/", Cookie=cookie).status == 200


def test_what_cannot_be_served_is_one_line():
    with pytest.raises(SerError, match="expected at least 16 characters"):
        Page("127.0.0.1", 0, "short")
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(
            SerError, match=r"cannot listen on 127\.0\.0\.1, port \d+ \(.*\); try another --port"
        ),
    ):
        Page("127.0.0.1", taken.getsockname()[1], None)


def test_a_browser_that_comes_back_gets_what_it_has_missed(page):
    first = stream(get(page, "/events"), 6)
    assert first[0][1]["labels"] == LABELS
    assert first[0][1]["letters"] == {"anger": "A", "sadness": "S", "surprise": "U"}
    again = stream(get(page, "/events", Last_Event_ID=first[5][0]), 2)
    assert again[1][1]["at_s"] == first[5][1]["at_s"] + 1
    other_session = stream(get(page, "/events", Last_Event_ID="cafe-6"), 6)
    assert other_session[5] == first[5]


def test_a_browser_that_comes_before_the_start_waits_for_it():
    page = Page("127.0.0.1", 0, None)
    early = http.client.HTTPConnection("127.0.0.1", page.port, timeout=10)
    early.request("GET", "/events")  # the system takes it; the program does not run yet
    with page:
        response = early.getresponse()
        assert [response.readline(), response.readline()] == [b"retry: 1000\n", b"\n"]
        page.send(START, "")
        page.send(SESSION[1], "USB microphone")
        assert response.readline() == b"event: hello\n"
        (_, hello), (first, start), (second, estimate) = stream(response, 3)
        early.close()
    assert hello["labels"] == start["labels"] == LABELS
    assert hello["letters"] == {"anger": "A", "sadness": "S", "surprise": "U"}
    assert estimate["label"] == "anger"
    assert [first[-2:], second[-2:]] == ["-1", "-2"]


def test_a_browser_that_does_not_read_holds_nothing_up(page):
    slow = get(page, "/events")
    started = time.monotonic()
    for n in range(30_000):
        page.send(status(20 + n), "USB microphone")
    assert time.monotonic() - started < 30
    ((_, hello),) = stream(get(page, "/events"), 1)
    assert hello["event"] == "start"
    assert all(client.qsize() <= 500 for client in page._clients)
    slow.close()


def test_downloads_hold_the_whole_session(page):
    found = json.loads(get(page, "/session.json").text)
    assert [e["event"] for e in found].count("estimate") == 12
    response = get(page, "/utterances.csv")
    assert response.headers["content-disposition"] == 'attachment; filename="utterances.csv"'
    rows = list(csv.DictReader(io.StringIO(response.text)))
    assert [(r["label"], r["uncertain"]) for r in rows] == [
        ("anger", "False"), ("sadness", "True"), ("(lost)", None),
    ]  # fmt: skip
    assert float(rows[0]["anger"]) == 0.8


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("needs Chromium: apt install chromium")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


def wait_for(tab, selector, count=None, text=None):
    from playwright.sync_api import expect

    if count is not None:
        expect(tab.locator(selector)).to_have_count(count, timeout=10_000)
    if text is not None:
        expect(tab.locator(selector)).to_contain_text(text, timeout=10_000)


def opened(browser, page, **options):
    context = browser.new_context(**options)
    tab = context.new_page()
    tab.problems = []
    tab.on("console", lambda m: tab.problems.append(m.text) if m.type == "error" else None)
    tab.on("pageerror", lambda e: tab.problems.append(str(e)))
    tab.goto(page.url)
    wait_for(tab, "#history tr", count=3)
    return tab


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("device", "width"), [("phone", 390), ("desktop", 1280)])
def test_a_real_browser_shows_the_session(browser, page, scheme, device, width):
    size = {"width": width, "height": 800}
    tab = opened(browser, page, viewport=size, color_scheme=scheme)
    assert tab.inner_text("#source") == "USB microphone"
    assert tab.inner_text("#clock") == "0:00:18"
    assert tab.inner_text("#now") == "surprise"
    meters = tab.eval_on_selector_all(
        "#bars [role=meter]", "m => m.map(e => [e.ariaLabel, e.ariaValueNow])"
    )
    assert meters == [["anger", "10"], ["sadness", "10"], ["surprise", "80"]]
    rows = [r.split("\t") for r in tab.inner_text("#history").splitlines()]
    assert [[c.strip() for c in r] for r in rows] == [
        ["0:00:12", "3.0 s", "lost: the microphone was away", ""],
        ["0:00:06", "4.5 s", "uncertain (sadness)", "80%"],
        ["0:00:00", "5.5 s", "anger", "80%"],
    ]
    assert tab.inner_text("#minute").replace("\n", "") == "AAAASSSSSUU" + "U"
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    dark = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark == ("rgb(20, 22, 26)" if scheme == "dark" else "rgb(251, 251, 250)")
    assert tab.problems == []
    tab.context.close()


def test_it_is_live_and_can_be_used_with_keys_alone(browser, page):
    tab = opened(browser, page)
    page.send(utterance(19, 22, "anger"), "USB microphone")
    wait_for(tab, "#history tr", count=4)
    assert tab.inner_text("#said") == "anger, 3.0 seconds"  # what a screen reader says
    page.send(status(23, False, "waiting", "no microphone found; waiting for it"), "USB microphone")
    wait_for(tab, "#state", text="waiting")
    stops = []
    for _ in range(3):
        tab.keyboard.press("Tab")
        stops.append(tab.evaluate("document.activeElement.textContent.trim().slice(0, 10)"))
    assert stops[1:] == ["Utterances", "Everything"]
    with tab.expect_download() as download:
        tab.keyboard.press("Enter")
    assert download.value.suggested_filename == "session.json"
    assert tab.problems == []
    tab.context.close()


def test_it_comes_back_by_itself(browser):
    with Page("127.0.0.1", 0, None) as first:
        first.send(START, "")
        for event in SESSION:
            first.send(event, "USB microphone")
        tab = opened(browser, first)
        port = first.port
    wait_for(tab, "#state", text="again")
    with Page("127.0.0.1", port, None) as second:
        second.send(dataclasses.replace(START, time="2026-01-02T00:00:00+00:00"), "")
        second.send(utterance(1, 2, "sadness"), "other")
        wait_for(tab, "#history tr", count=1)
        assert tab.inner_text("#source") == "other"
        second.send(Summary(*[0] * len(dataclasses.fields(Summary))), "")
        wait_for(tab, "#state", text="ended")
    tab.context.close()


def test_a_tab_that_is_open_before_the_start_shows_it_all(browser):
    with Page("127.0.0.1", 0, None) as page:
        tab = browser.new_page()
        tab.problems = []
        tab.on("pageerror", lambda e: tab.problems.append(str(e)))
        tab.goto(page.url)
        wait_for(tab, "#state", text="live")
        page.send(START, "")
        for event in SESSION:
            page.send(event, "USB microphone")
        wait_for(tab, "#history tr", count=3)
        wait_for(tab, "#now", text="surprise")
        assert tab.inner_text("#minute").replace("\n", "") == "AAAASSSSSUU" + "U"
        assert tab.locator("#bars .row").count() == 3
        assert tab.problems == []
        tab.close()


def test_a_message_stays_until_somebody_is_heard(browser, page):
    tab = opened(browser, page)
    page.send(status(20, False, message="digital silence: is it muted?"), "USB microphone")
    page.send(status(80, False), "USB microphone")
    wait_for(tab, "#clock", text="0:01:20")
    assert tab.inner_text("#state") == "digital silence: is it muted?"
    page.send(estimate(81, "anger"), "USB microphone")
    wait_for(tab, "#state", text="live")
    tab.context.close()


def test_a_tab_with_an_old_token_says_what_to_do(browser):
    with Page("127.0.0.1", 0, TOKEN) as first:
        tab = browser.new_page()
        tab.goto(first.url)
        wait_for(tab, "#state", text="live")
        port = first.port
    wait_for(tab, "#state", text="again")
    with Page("127.0.0.1", port, "another-token-of-some-length"):
        wait_for(tab, "#state", text="open the address that the program shows")
    tab.close()


def test_html_in_a_name_stays_text(browser):
    with Page("127.0.0.1", 0, None) as page:
        page.send(START, "")
        for event in SESSION:
            page.send(event, "<img src=x onerror=alert(1)>")
        tab = opened(browser, page)
        assert tab.inner_text("#source") == "<img src=x onerror=alert(1)>"
        tab.context.close()


def test_the_page_is_one_file():
    assert "innerHTML" not in PAGE.read_text(encoding="utf-8")
