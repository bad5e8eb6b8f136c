//! Who may connect to a Unix socket: its permissions are those of the configuration.

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::support::gateway::{Directory, binary};
use crate::support::wait_until;

/// A gateway on a Unix socket.
struct OnSocket(Child);

impl OnSocket {
    fn start(directory: &Directory, umask: &str, mode: Option<&str>) -> OnSocket {
        OnSocket::of_group(directory, umask, mode, None)
    }

    fn of_group(
        directory: &Directory,
        umask: &str,
        mode: Option<&str>,
        group: Option<&str>,
    ) -> OnSocket {
        let socket = format!("unix:{}", directory.path().join("socket").display());
        let mut config = json!({ "listen": socket, "mcp_servers": {} });
        if let Some(mode) = mode {
            config["socket_mode"] = Value::from(mode);
        }
        if let Some(group) = group {
            config["socket_group"] = Value::from(group);
        }
        let path = directory.path().join("config.json");
        std::fs::write(&path, config.to_string()).unwrap();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "umask $0 && exec \"$@\"", umask, binary(), "--config"]).arg(&path);
        OnSocket(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for OnSocket {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// Whether somebody is served there.
fn is_served(directory: &Directory) -> bool {
    let Ok(mut socket) = UnixStream::connect(directory.path().join("socket")) else {
        return false;
    };
    socket.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer.starts_with("HTTP/1.") && answer.contains(" 200 ")
}

#[test]
fn a_socket_has_the_permissions_of_the_configuration_whatever_the_umask() {
    for (umask, mode, wanted) in [
        ("000", None, 0o660),
        ("077", None, 0o660),
        ("000", Some("0600"), 0o600),
        ("022", Some("666"), 0o666),
    ] {
        let directory = Directory::new();
        let socket = directory.path().join("socket");
        // One that a killed process has left is replaced.
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o600)).unwrap();
        let _gateway = OnSocket::start(&directory, umask, mode);
        let bits = || {
            let found = std::fs::symlink_metadata(&socket).ok()?;
            Some(found.permissions().mode() & 0o777)
        };
        wait_until("it is served", || {
            // Open wider it is at no time.
            assert_eq!(bits().unwrap_or_default() & !wanted, 0, "{umask} {mode:?}");
            is_served(&directory)
        });
        assert_eq!(bits(), Some(wanted), "{umask} {mode:?}");
    }
}

#[test]
fn a_socket_has_the_group_of_the_configuration() {
    // Only root may give a file to a group that is not its own.
    let own = std::fs::metadata("/proc/self").unwrap().gid();
    let (group, number) =
        if own == 0 { ("nogroup".to_owned(), 65534) } else { (own.to_string(), own) };
    let directory = Directory::new();
    let _gateway = OnSocket::of_group(&directory, "0077", Some("0660"), Some(&group));
    wait_until("it is served", || is_served(&directory));
    let socket = std::fs::metadata(directory.path().join("socket")).unwrap();
    assert_eq!((socket.gid(), socket.permissions().mode() & 0o777), (number, 0o660));
    let directory = Directory::new();
    let mut odd = OnSocket::of_group(&directory, "0077", None, Some("no such group"));
    let ended = crate::support::wait_for("it ends", || odd.0.try_wait().unwrap());
    assert_eq!(ended.code(), Some(1));
}
