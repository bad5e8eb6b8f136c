#!/usr/bin/env python3
"""Stands in for a user and their browser: browser.py URL, as $BROWSER or by itself.

It follows redirects and pages that refresh at once, keeps cookies, types $RIG_USER into a page that asks for a name ($RIG_KEY where
the field is a secret one), and ends at the address that the
sign-in comes back to. That address is fetched from behind, as a program may listen for it only when its browser has
returned; with RIG_BROWSER=print it is printed instead, and with RIG_BROWSER=nothing the page stays as it is, unanswered.
$RIG_BROWSER_AT='https://name=http://127.0.0.1:PORT' is where an address of that name is, and $RIG_BROWSER_LOG gets a line
for each step.
"""

import html
import http.client
import os
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

SECONDS = 20
MOST_STEPS = 20


def say(text: str) -> None:
    if os.environ.get("RIG_BROWSER_LOG"):
        with open(os.environ["RIG_BROWSER_LOG"], "a") as log:
            log.write(text + "\n")


class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


class Page:
    def __init__(self) -> None:
        self.http = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(), Stay)

    def get(self, url: str, form: dict[str, str] | None = None) -> tuple[int, str | None, str]:
        """The status, where it redirects to, and the page."""
        name, _, place = os.environ.get("RIG_BROWSER_AT", "").partition("=")
        at = place + url.removeprefix(name) if name and url.startswith(name) else url
        data = None if form is None else urllib.parse.urlencode(form).encode()
        # Browsers say of a form where it stands.
        origin = "://".join(urllib.parse.urlsplit(url)[:2])
        headers = {} if form is None else {"Origin": origin}
        try:
            answer = self.http.open(urllib.request.Request(at, data, headers), timeout=SECONDS)
        except urllib.error.HTTPError as e:
            answer = e
        with answer:
            to = answer.headers.get("Location")
            return answer.status, to and urllib.parse.urljoin(url, to), answer.read().decode(errors="replace")


def is_end(url: str) -> bool:
    """True of the address that an authorization server sends the browser back to."""
    names = urllib.parse.parse_qs(urllib.parse.urlparse(url).query)
    return "state" in names and ("code" in names or "error" in names)


def walk(page: Page, url: str, user: str) -> str:
    """Where the sign-in comes back to."""
    for _ in range(MOST_STEPS):
        if is_end(url):
            return url
        status, to, text = page.get(url)
        say(f"{status} {url}")
        if form := re.search(r"<form\b[^>]*>.*?</form>", text, re.S):
            action = re.search(r'action="([^"]*)"', form[0])
            to_form = urllib.parse.urljoin(url, html.unescape(action[1]) if action else "")
            status, to, text = page.get(to_form, filled(form[0], user))
            say(f"{status} filled in at {to_form}")
            url = to_form
        if to is None and (refresh := re.search(r'<meta http-equiv="refresh" content="0; url=([^"]+)"', text)):
            to = urllib.parse.urljoin(url, html.unescape(refresh[1]))
        if to is None:
            say(f"nowhere: {text[:500]}")
            sys.exit(f"{url}: {status} {text[:500]}")
        url = to
    sys.exit(f"{url}: more than {MOST_STEPS} steps")


def filled(form: str, user: str) -> dict[str, str]:
    """The fields of a form: hidden ones as they are, a key in one that is secret, and the user's name elsewhere."""
    fields = {}
    for field in re.findall(r"<input\b[^>]*>", form):
        attributes = {name: html.unescape(value) for name, value in re.findall(r'([a-z-]+)="([^"]*)"', field)}
        kind = attributes.get("type", "text")
        usual = {"hidden": attributes.get("value", ""), "password": os.environ.get("RIG_KEY", "")}
        if "name" in attributes:
            fields[attributes["name"]] = usual.get(kind, user)
    return fields


def come_back(page: Page, url: str) -> None:
    until = time.monotonic() + SECONDS
    while True:
        try:
            status, to, text = page.get(url)
        except (OSError, http.client.HTTPException) as e:
            if time.monotonic() > until:
                say(f"back failed: {e}")
                return
            time.sleep(0.1)
        else:
            return say(f"back {status} {to or ''} {' '.join(re.sub('<[^>]*>', ' ', text).split())[:300]}")


def main() -> None:
    way = os.environ.get("RIG_BROWSER", "")
    say(f"open {sys.argv[1]}")
    if way == "nothing":
        return
    page = Page()
    if way == "print":
        return print(walk(page, sys.argv[1], os.environ.get("RIG_USER", "alice")))
    if os.fork() == 0:
        os.setsid()
        come_back(page, walk(page, sys.argv[1], os.environ.get("RIG_USER", "alice")))


main()
