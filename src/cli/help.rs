//! The texts of `--help`.

use super::command::Name;

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
        Some(Name::Login) => LOGIN,
        Some(Name::Logout) => LOGOUT,
        Some(Name::Stdio) => STDIO,
        Some(Name::Tools) => TOOLS,
        Some(Name::Call) => CALL,
        Some(Name::Status) => STATUS,
        Some(Name::Reload) => RELOAD,
        Some(Name::NewKey) => NEW_KEY,
        Some(Name::Completions) => COMPLETIONS,
        Some(Name::Man) => MAN,
        Some(Name::Help) => HELP,
    }
}

const PROGRAM: &str = "\
Trunkline is an MCP gateway: many MCP servers behind one address.

Usage: trunkline [COMMAND] [OPTIONS]

Commands:
  serve         run the gateway (the default)
  check         check the configuration, and try every server
  import        make a configuration of another program's
  stdio         the gateway as a stdio MCP server, for hosts that only start commands
  tools         list the tools of a configuration or of a running gateway
  call          call one of them
  status        how a running gateway is
  reload        have a running gateway read its configuration again
  login         sign in at a server
  logout        sign out of one
  pins          show and accept what has changed since it was pinned
  new-key       make a key and its sha256 for the configuration
  hash-key      read a key from standard input, print its sha256 for the configuration
  demo          run the built-in MCP server, to try things with
  completions   print a script that completes words, for bash, zsh or fish
  man           print the manual page
  help          this text, or that of a command

Options:
  -h, --help      this text, or that of a command
  -V, --version   the version

Exit codes: 0 fine, 1 failed at run time, 2 wrong arguments, 69 a server is not well or no tool
has that name, 78 bad configuration.
";

const SERVE: &str = "\
Runs the gateway until SIGTERM, SIGINT or SIGQUIT.

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

const STATUS: &str = "\
Says how a running gateway is: its servers, what they speak, and what is wrong with them. With
keys configured, an admin's key in $TRUNKLINE_KEY shows everything; without one it says whether
the gateway lives. As a health check of a container: exit code 0 says that it answers.

Usage: trunkline status [--config FILE | --url URL] [--json]

Options:
  -c, --config FILE   the gateway of this file, at its address (default: $TRUNKLINE_CONFIG,
                      else config.json)
  --url URL           at this address: http://HOST:PORT
  --json              everything, as /status gives it
  -h, --help          this text
";

const RELOAD: &str = "\
Has a running gateway read its configuration again, waits, and prints what has changed. A file
with something wrong in it changes nothing: its problems are told, with exit code 78. With keys
configured, this needs an admin's in $TRUNKLINE_KEY. SIGHUP does the same without an answer.

Usage: trunkline reload [--config FILE | --url URL]

Options:
  -c, --config FILE   the gateway of this file, at its address (default: $TRUNKLINE_CONFIG,
                      else config.json)
  --url URL           at this address: http://HOST:PORT
  -h, --help          this text
";

const NEW_KEY: &str = "\
Makes a key that nobody can guess, and prints it with its SHA-256: the key is for the client, the
hash for \"sha256\" of an element of \"api_keys\".

Usage: trunkline new-key [--json]

Options:
  --json       {\"key\": ..., \"sha256\": ...}
  -h, --help   this text
";

const COMPLETIONS: &str = "\
Prints a script by which a shell completes the words of this program.

Usage: eval \"$(trunkline completions bash)\"
       trunkline completions zsh > FOLDER-OF-FPATH/_trunkline
       trunkline completions fish > ~/.config/fish/completions/trunkline.fish

Options:
  -h, --help   this text
";

const MAN: &str = "\
Prints the manual page.

Usage: trunkline man > /usr/local/share/man/man1/trunkline.1

Options:
  -h, --help   this text
";

const HELP: &str = "\
Prints what the program does, or a command.

Usage: trunkline help [COMMAND]

Options:
  -h, --help   this text
";

const TOOLS: &str = "\
Lists tools: of the servers of a configuration, which are started for it, or of a running gateway.

Usage: trunkline tools [SERVER] [--config FILE | --url URL] [--json]

Options:
  -c, --config FILE   the configuration (default: $TRUNKLINE_CONFIG, else config.json)
  --url URL           a running gateway, or any MCP server over HTTP, with the key in
                      $TRUNKLINE_KEY; http://HOST:PORT is short for http://HOST:PORT/mcp
  --json              {\"tools\": [...]}, as the servers gave them
  -h, --help          this text

Exit code 69 says that a server is not well; which one, and why, stands on standard error.
";

const CALL: &str = "\
Calls a tool, of a server of a configuration, which is started for it, or of a running gateway.
The result goes to standard output, progress and log messages to standard error. What the server
asks the user is asked on the terminal (elicitation; sampling is not offered).

Usage: trunkline call NAME [JSON] [KEY=VALUE ...] [-] [--config FILE | --url URL]

Arguments: an object in JSON, single properties as KEY=VALUE, \"-\" for an object on standard
input; later ones replace earlier ones. They are held against the tool's schema first.

Options:
  -c, --config FILE   the configuration (default: $TRUNKLINE_CONFIG, else config.json)
  --url URL           a running gateway, or any MCP server over HTTP, with the key in
                      $TRUNKLINE_KEY; http://HOST:PORT is short for http://HOST:PORT/mcp
  --json              the result as it came
  --save FOLDER       writes images, audio and other files of the result there
  --no-ask            declares nothing that a server could ask
  -h, --help          this text

Exit codes: 0 fine, 1 the tool reports an error or the call failed, 2 wrong arguments, 69 no tool
of that name, or the gateway at URL does not answer.
";

const STDIO: &str = "\
Serves one client over standard input and output, a JSON-RPC message a line, until it ends its
input: the gateway with a configuration of its own, or in front of another gateway.

Usage: trunkline stdio [--config FILE | --url URL]

Options:
  -c, --config FILE   the configuration (default: $TRUNKLINE_CONFIG, else config.json)
  --url URL           a running gateway, or any MCP server over HTTP, with the key in
                      $TRUNKLINE_KEY; http://HOST:PORT is short for http://HOST:PORT/mcp
  -h, --help          this text

The host may see everything; keys are not asked for. With \"state_dir\" in use by a running
gateway, what that one keeps is read and nothing is written.
";

const DEMO: &str = "\
Runs an MCP server with a few tools, resources and prompts over standard input and output,
until the end of its input; or over Streamable HTTP, until SIGTERM or SIGINT.

Usage: trunkline demo [--http ADDRESS]

Options:
  --http ADDRESS   address:port, or a port of loopback; no other address is served
  -h, --help       this text
";

const LOGIN: &str = "\
Signs in at a server with \"oauth\", for all who use the gateway: opens the page of its
authorization server with $BROWSER, or prints where it is, and waits until the browser comes back.

Usage: trunkline login NAME [--paste] [-c FILE]

The browser comes back to a free port of this machine. Where the client is registered already
(\"client_id\"), or the gateway has a \"public_url\", it comes back to the running gateway, which
must be the one of FILE; with keys configured, this needs an admin's in $TRUNKLINE_KEY. On a
machine without a browser, --paste takes from standard input where a browser elsewhere ended.

The tokens are kept in \"state_dir\", where the gateway finds them, also while it runs. A server
whose grant is \"client_credentials\" or \"jwt_bearer\" needs no sign-in; with \"credentials\":
\"per_user\" each user signs in for themselves.

Options:
  -c, --config FILE   the configuration (default: $TRUNKLINE_CONFIG, else config.json)
  --paste             reads the address, or the code, that the browser ended with
  -h, --help          this text

Exit codes: 0 signed in, or there is no need to; 1 it failed; 2 wrong arguments; 78 bad
configuration.
";

const LOGOUT: &str = "\
Signs out of a server: deletes the gateway's tokens for it, and revokes them where its
authorization server offers that. A gateway that runs uses them no longer. At a server with
\"credentials\": \"per_user\" it ends the sign-ins of all users, or of one.

Usage: trunkline logout NAME [--user WHO] [-c FILE]

WHO is the name of the user's key, or the user as the log and ${user.name} name one who came with
an access token: SUBJECT@ISSUER.

Options:
  --user WHO          ends the sign-ins of this user alone
  -c, --config FILE   the configuration (default: $TRUNKLINE_CONFIG, else config.json)
  -h, --help          this text

Exit codes: 0 signed out, or nobody was signed in; 1 it failed; 2 wrong arguments; 78 bad
configuration.
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
  -c, --config FILE   the configuration (default: $TRUNKLINE_CONFIG, else config.json)
  -h, --help          this text
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
of an element of \"api_keys\". One line end after the key is not part of it. A key that is typed
is not shown.

Usage: trunkline hash-key < FILE

Options:
  -h, --help   this text
";
