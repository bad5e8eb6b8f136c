//! What `--help` says.

use super::arguments::Name;

/// The help of a command, or of the program.
pub(super) fn text(topic: Option<Name>) -> &'static str {
    match topic {
        None => PROGRAM,
        Some(Name::Serve) => SERVE,
        Some(Name::Demo) => DEMO,
        Some(Name::HashKey) => HASH_KEY,
        Some(Name::Import) => IMPORT,
        Some(Name::Pins) => PINS,
        Some(Name::Check) => CHECK,
    }
}

const PROGRAM: &str = "\
Trunkline is an MCP gateway: many MCP servers behind one address.

Usage: trunkline [COMMAND] [OPTIONS]

Commands:
  serve      run the gateway (the default)
  check      check the configuration, and try every server
  demo       run the built-in MCP server, to try things with
  hash-key   read a key from standard input, print its sha256 for the configuration
  import     make a configuration of another program's
  pins       show and accept what has changed since it was pinned

Options:
  -h, --help      this text, or that of a command
  -V, --version   the version

Exit codes: 0 fine, 1 failed at run time, 2 wrong arguments, 69 a server is not well or no tool
has that name, 78 bad configuration.
";

const SERVE: &str = "\
Runs the gateway until SIGTERM or SIGINT.

Usage: trunkline [serve] [-c FILE] [--listen ADDRESS]
       trunkline FILE

Options:
  -c, --config FILE   the configuration (default: $TRUNKLINE_CONFIG, else config.json)
  --listen ADDRESS    address:port, a port of loopback, or unix:/path, in place of the file's
  -h, --help          this text
";

const CHECK: &str = "\
Reads the configuration and says everything that is wrong with it; then tries all servers at
once, as the gateway does, and says of each how far it came: a line each, as it comes.

Usage: trunkline check [-c FILE] [--no-connect] [--json]

A server that fails is told with the stage at which it did, the likely cause, and what to do.
The end is success only if the configuration is right (else 78) and every server is well (else
69).

Options:
  -c, --config FILE   the configuration (default: $TRUNKLINE_CONFIG, else config.json)
  --no-connect        the configuration alone, as before a reload
  --json              one JSON object, for programs
  -h, --help          this text
";

const DEMO: &str = "\
Runs an MCP server with a few tools, resources and prompts over standard input and output,
until the end of its input; or over Streamable HTTP, until SIGTERM or SIGINT.

Usage: trunkline demo [--http ADDRESS]

Options:
  --http ADDRESS   address:port, or a port of loopback; no other address is served
  -h, --help       this text
";

const PINS: &str = "\
Shows and accepts what servers with \"pin\" say of themselves and is not what it was: tools,
prompts, resources, resource templates, and the server's instructions.

Usage: trunkline pins list [--config FILE]
       trunkline pins diff SERVER [TOOL] [--config FILE]
       trunkline pins accept SERVER [TOOL] [--config FILE]

\"list\" has a line for each pin of each server. \"diff\" shows what has changed, a line that
begins with \"-\" for what was pinned and one with \"+\" for what was seen last. \"accept\" takes it
as it was seen last: one (by its name or URI, or the word \"instructions\"), or all. A running
gateway takes that up within seconds, another one when it starts. A change is there to be shown
and accepted once the gateway has written it: within a second, or minutes where tools change all
the time.

Options:
  --config FILE   the configuration (default: config.json)
  -h, --help      this text
";

const IMPORT: &str = "\
Makes a configuration of what another program has: \"mcpServers\" of Claude Desktop, Claude Code,
Cursor or Windsurf, \"servers\" of VS Code, LiteLLM's YAML, or a server.json of the MCP registry.

Usage: trunkline import FILE > config.json
       trunkline import - < FILE > config.json

What could not be carried over is said on standard error, and which variables are to be set:
what the file takes from a variable, the configuration takes from one too. Look at both, then
try the result: trunkline check --config config.json

Options:
  -h, --help   this text
";

const HASH_KEY: &str = "\
Reads a key from standard input and prints its SHA-256 in hexadecimal: the value of \"sha256\"
of an element of \"api_keys\". One line end after the key is not part of it.

Usage: trunkline hash-key < FILE

Options:
  -h, --help   this text
";
