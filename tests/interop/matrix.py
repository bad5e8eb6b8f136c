"""What the interoperability run runs: set-ups, the suite's scenarios, stock clients and their checks."""

from dataclasses import dataclass

from servers import HERE, NODE, PYTHON


@dataclass(frozen=True)
class Setup:
    """What stands behind the gateway, or what is asked directly."""

    name: str
    transport: str
    # The only era that the fixture knows, 'modern' or 'legacy'; '' for both, as far as the transport has both.
    era: str = ""
    # Whether server-everything stands beside the fixture.
    beside: bool = False
    # Whether the fixture's tools ask the client in the way of the era that they are called in. Where
    # they do not, an answer needs that a client of either era is served over its own.
    both_ways: bool = True
    # Whether the older revisions, and the suite's own servers as the upstream, belong to it.
    whole: bool = False


def setups_of(transport: str, era: str = "") -> list[Setup]:
    own = "-".join(filter(None, (transport, era)))
    whole = own == "http"
    return [
        Setup(own, transport, era, False, not whole, whole),
        Setup(f"{own}-two", transport, era, True, not whole, whole),
    ]


SETUPS = [
    *setups_of("http"),
    *setups_of("http", "modern"),
    *setups_of("http", "legacy"),
    *setups_of("sse"),
    *setups_of("stdio"),
    *setups_of("stdio", "modern"),
    *setups_of("stdio", "legacy"),
    # The suite and the clients over HTTP, which the gateway in front of `trunkline stdio` gives them.
    Setup("through-stdio", "through-stdio"),
]
DIRECT = [Setup("direct", "http", both_ways=False, whole=True), Setup("direct-both-ways", "http")]

# The suite's server scenarios by revision. The whole of a revision is one run of the suite, with
# these words; what it counts as the revision's is what stands here.
CONTENTS = [
    "tools-list",
    "tools-call-simple-text",
    "tools-call-image",
    "tools-call-audio",
    "tools-call-embedded-resource",
    "tools-call-mixed-content",
    "tools-call-error",
    "tools-call-with-progress",
]
LISTS = [
    "completion-complete",
    "resources-list",
    "resources-read-text",
    "resources-read-binary",
    "resources-templates-read",
    "prompts-list",
    "prompts-get-simple",
    "prompts-get-with-args",
    "prompts-get-embedded-resource",
    "prompts-get-with-image",
]
HANDSHAKE = [
    "server-initialize",
    "server-session-lifecycle",
    "ping",
    "tools-call-with-logging",
    "tools-call-sampling",
]
HANDSHAKE_SINCE_2025_06_18 = [
    "logging-set-level",
    "tools-call-elicitation",
    "resources-subscribe",
    "resources-unsubscribe",
]
SINCE_2025_11_25 = ["server-sse-multiple-streams", "dns-rebinding-protection", "json-schema-2020-12"]
SERVER_SCENARIOS = {
    "2026-07-28": CONTENTS
    + LISTS
    + SINCE_2025_11_25
    + [
        "server-stateless",
        "sep-2164-resource-not-found",
        "caching",
        "http-header-validation",
        "http-custom-header-server-validation",
        "input-required-result-basic-elicitation",
        "input-required-result-basic-sampling",
        "input-required-result-basic-list-roots",
        "input-required-result-request-state",
        "input-required-result-multiple-input-requests",
        "input-required-result-multi-round",
        "input-required-result-missing-input-response",
        "input-required-result-non-tool-request",
        "input-required-result-result-type",
        "input-required-result-unsupported-methods",
        "input-required-result-tampered-state",
        "input-required-result-capability-check",
        "input-required-result-ignore-extra-params",
        "input-required-result-validate-input",
    ],
    "2025-11-25": CONTENTS
    + LISTS
    + SINCE_2025_11_25
    + HANDSHAKE
    + HANDSHAKE_SINCE_2025_06_18
    + ["elicitation-sep1034-defaults", "elicitation-sep1330-enums", "server-sse-polling"],
    "2025-06-18": CONTENTS + LISTS + HANDSHAKE + HANDSHAKE_SINCE_2025_06_18,
    # The suite counts only one of them as this revision's; the others are forced.
    "2025-03-26": CONTENTS + HANDSHAKE,
}
WHOLE_REVISION = {
    "2026-07-28": ["--requirements", "2026-07-28"],
    "2025-11-25": ["--requirements", "2025-11-25"],
    "2025-06-18": ["--suite", "all", "--spec-version", "2025-06-18"],
}
# What the suite's client speaks when it is left alone; an older revision is asked for by the relay.
SUITE_SPEAKS = ("2026-07-28", "2025-11-25")
# The suite runs them with a revision's requirements, but they are of an extension that the fixture has not.
NOT_OF_THE_FIXTURE = "tasks-*"

CLIENT_SCENARIOS = {
    "2025-11-25": [
        "initialize",
        "tools_call",
        "elicitation-sep1034-client-defaults",
        "sse-retry",
        "json-schema-2020-12-preservation",
    ],
    "2026-07-28": [
        "tools_call",
        "request-metadata",
        "sep-2322-client-request-state",
        "http-standard-headers",
        "http-custom-headers",
        "http-invalid-tool-headers",
        "json-schema-ref-no-deref",
        "json-schema-2020-12-preservation",
    ],
}
# The suite's auth scenarios for clients, in which the gateway is the OAuth client of the suite's authorization server.
AUTH = [
    "metadata-default",
    "metadata-var1",
    "metadata-var2",
    "metadata-var3",
    "basic-cimd",
    "scope-from-www-authenticate",
    "scope-from-scopes-supported",
    "scope-omitted-when-undefined",
    "scope-step-up",
    "scope-retry-limit",
    "token-endpoint-auth-basic",
    "token-endpoint-auth-post",
    "token-endpoint-auth-none",
    "pre-registration",
]
AUTH_SINCE_2026_07_28 = [
    "resource-mismatch",
    "offline-access-scope",
    "offline-access-not-supported",
    "authorization-server-migration",
    "iss-supported",
    "iss-not-advertised",
    "iss-supported-missing",
    "iss-wrong-issuer",
    "iss-unexpected",
    "iss-normalized",
    "metadata-issuer-mismatch",
]
# Those of extensions that the stock Python SDK has too, and those that it has not.
AUTH_EXTENSIONS = ["client-credentials-basic", "client-credentials-jwt"]
AUTH_EXTENSIONS_BEYOND = ["enterprise-managed-authorization", "wif-jwt-bearer", "dpop", "dpop-nonce"]
# The servers of these are such that no sign-in may succeed.
AUTH_REFUSED = [
    "scope-retry-limit",
    "resource-mismatch",
    "iss-supported-missing",
    "iss-wrong-issuer",
    "iss-unexpected",
    "iss-normalized",
    "metadata-issuer-mismatch",
]
AUTH_SCENARIOS = {
    "2026-07-28": AUTH + AUTH_SINCE_2026_07_28 + AUTH_EXTENSIONS + AUTH_EXTENSIONS_BEYOND,
    "2025-11-25": AUTH + AUTH_EXTENSIONS + AUTH_EXTENSIONS_BEYOND,
    "2025-03-26": ["2025-03-26-oauth-metadata-backcompat", "2025-03-26-oauth-endpoint-fallback"],
}

# With a client of the revision's era, and with one of the other era: what reaches the suite's server is the same.
CLIENT_KINDS = ["client", "bridged"]

# The stock clients, each run whole.
PY = [PYTHON, HERE / "drivers/py/user_mcp2.py"]
TS = [NODE, "user_ts2.mjs"]
DRIVERS = {
    "py2-auto": [*PY, "--era", "auto"],
    "py2-modern": [*PY, "--era", "2026-07-28"],
    "py2-legacy": [*PY, "--era", "legacy"],
    "py2-sse": [*PY, "--transport", "sse"],
    "ts2-auto": [*TS, "--era", "auto"],
    "ts2-modern": [*TS, "--era", "2026-07-28"],
    "ts2-legacy": [*TS, "--era", "legacy"],
    "ts2-sse": [*TS, "--transport", "sse"],
    # Each user starts `trunkline stdio` in front of the gateway.
    "py2-stdio-modern": [*PY, "--transport", "stdio", "--era", "2026-07-28"],
    "py2-stdio-legacy": [*PY, "--transport", "stdio", "--era", "legacy"],
    "ts2-stdio-modern": [*TS, "--transport", "stdio", "--era", "2026-07-28"],
    "ts2-stdio-legacy": [*TS, "--transport", "stdio", "--era", "legacy"],
}
DRIVER_CHECKS = [
    "connect",
    "list-tools",
    "call-echo",
    "call-structured",
    "call-content-kinds",
    "call-error",
    "call-unknown",
    "progress",
    "logging",
    "resources",
    "resource-templates",
    "prompts",
    "completion",
    "sampling",
    "elicitation",
    "roots",
    "multi-round",
    "prompt-input-required",
    "other-way",
    "resource-updates",
    "list-changed",
    "cancellation",
    "resumption",
    "big-result",
    "parallel",
    "two-users",
    "ping",
    "close",
]


def checks_of(driver: str, setup: Setup) -> list[str]:
    """What that driver checks in that set-up. 'auto' finds the modern era, which the gateway knows."""
    language, _, way = driver.partition("-")
    over_stdio = way.startswith("stdio-")
    if over_stdio and (setup in DIRECT or setup.transport == "through-stdio"):
        return []
    way = way.removeprefix("stdio-")
    left_out = {"call-unknown", "prompt-input-required"} if language == "ts2" else set()
    left_out |= {"resumption", "ping"} if way in ("auto", "modern") else {"multi-round", "prompt-input-required"}
    left_out |= {"resumption"} if way == "sse" or over_stdio else set()
    left_out |= set() if setup.both_ways else {"other-way"}
    return [check for check in DRIVER_CHECKS if check not in left_out]


def names_at(setup: Setup) -> list[str]:
    """The checks of one gateway, or of the fixture asked directly."""
    names = [f"{setup.name} gateway - {check}" for check in ("start", "stop")]
    for revision, scenarios in SERVER_SCENARIOS.items():
        if setup.whole or revision in SUITE_SPEAKS:
            names += [f"{setup.name} server {revision} {scenario}" for scenario in scenarios]
    return names + [f"{setup.name} driver {driver} {check}" for driver in DRIVERS for check in checks_of(driver, setup)]
