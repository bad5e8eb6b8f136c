//! Pure: compares a newly read configuration with the running one.

use std::collections::HashMap;
use std::fmt;

use super::{ApiKey, Config, Pin, Problem};

/// The answer to a reload that changes nothing.
pub const NOTHING_DIFFERS: &str = "nothing differs";
use crate::protocol::server_name::ServerName;

/// The changes of a reload.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// New servers.
    pub added: Vec<ServerName>,
    /// Servers that are removed or disabled.
    pub removed: Vec<ServerName>,
    /// Servers with any other difference: they are contacted anew.
    pub changed: Vec<ServerName>,
    /// Keys that are removed, or that have another secret under the same name.
    keys_ended: Vec<String>,
    /// True if clients without a key are no longer admitted.
    ends_anonymous: bool,
    /// Changed keys of the file that concern the rights of clients' keys, or the admission of
    /// clients.
    access: Vec<&'static str>,
    /// Other changed keys of the file that take effect at once.
    other: Vec<&'static str>,
    /// True if the owners of names or their order may have changed.
    names: bool,
    /// Changed keys of the file that take effect at the next start.
    pub at_next_start: Vec<&'static str>,
}

impl Changes {
    /// True if no change takes effect.
    pub fn is_nothing(&self) -> bool {
        let servers = [&self.added, &self.removed, &self.changed];
        // A key that has ended is a change of access.
        servers.iter().all(|names| names.is_empty())
            && self.access.is_empty()
            && self.other.is_empty()
            && !self.names
    }

    /// True if the sessions of a key, or of clients without one, must end: their clients can no
    /// longer prove that the sessions are theirs.
    pub fn ends(&self, key: Option<&str>) -> bool {
        match key {
            Some(name) => self.keys_ended.iter().any(|ended| ended == name),
            None => self.ends_anonymous,
        }
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers = [
            ("servers added", &self.added),
            ("servers removed", &self.removed),
            ("servers changed", &self.changed),
        ];
        let mut parts: Vec<String> = servers
            .iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| {
                let names: Vec<&str> = names.iter().map(ServerName::as_str).collect();
                format!("{what}: {}", names.join(", "))
            })
            .collect();
        if !self.keys_ended.is_empty() {
            parts.push(format!("keys ended: {}", self.keys_ended.join(", ")));
        }
        for (what, keys) in
            [("access changed", &self.access), ("other settings changed", &self.other)]
        {
            if !keys.is_empty() {
                parts.push(format!("{what}: {}", keys.join(", ")));
            }
        }
        if parts.is_empty() && self.names {
            parts.push("the order of servers or the owners of names changed".to_owned());
        }
        if parts.is_empty() {
            return f.write_str(NOTHING_DIFFERS);
        }
        f.write_str(&parts.join("; "))
    }
}

/// The keys that differ.
fn differing<const N: usize>(keys: [(&'static str, bool); N]) -> Vec<&'static str> {
    keys.into_iter().filter(|(_, is_same)| !is_same).map(|(key, _)| key).collect()
}

impl Config {
    /// Adapts a newly read configuration so that it can follow `running`: unchanged servers are
    /// the very same values, and values that take effect only at a start stay as they are.
    ///
    /// # Errors
    /// The configuration would admit everybody at the address that is listened on until the next
    /// start, or pin tools or sign in without a `state_dir`.
    pub fn follow(&mut self, running: &Config) -> Result<Changes, Problem> {
        self.check_admission(running)?;
        if running.state_dir.is_none() {
            self.check_without_state_dir()?;
        }
        let mut changes = Changes {
            at_next_start: self.keep_until_start(running),
            access: differing([
                ("api_keys", self.api_keys == running.api_keys),
                ("oauth", self.oauth == running.oauth),
                ("allowed_origins", self.allowed_origins == running.allowed_origins),
                ("allowed_hosts", self.allowed_hosts == running.allowed_hosts),
                ("allow_anonymous", self.allow_anonymous == running.allow_anonymous),
                ("trusted_proxies", self.trusted_proxies == running.trusted_proxies),
                ("public_url", self.public_url == running.public_url),
                ("transports", self.transports == running.transports),
                ("strict_clients", self.tolerance == running.tolerance),
            ]),
            other: differing([
                ("prefix", self.naming.prefix == running.naming.prefix),
                ("prefix_separator", self.naming.separator == running.naming.separator),
                // The log's format stays until the next start.
                ("log", self.log == running.log),
            ]),
            names: self.naming.owners != running.naming.owners
                || !self
                    .upstreams
                    .iter()
                    .map(|it| &it.name)
                    .eq(running.upstreams.iter().map(|it| &it.name)),
            ends_anonymous: !running.wants_credentials() && self.wants_credentials(),
            ..Changes::default()
        };
        let is_kept = |old: &&ApiKey| {
            self.api_keys.iter().any(|new| new.name == old.name && new.sha256 == old.sha256)
        };
        let ended = running.api_keys.iter().filter(|old| !is_kept(old));
        changes.keys_ended = ended.map(|key| key.name.clone()).collect();
        let mut old: HashMap<_, _> =
            running.upstreams.iter().map(|it| (&it.name, it)).collect();
        for server in &mut self.upstreams {
            match old.remove(&server.name) {
                Some(same) if same == server => *server = same.clone(),
                Some(_) => changes.changed.push(server.name.clone()),
                None => changes.added.push(server.name.clone()),
            }
        }
        changes.removed = old.into_keys().cloned().collect();
        changes.removed.sort();
        Ok(changes)
    }

    /// Checks that nobody is let in unasked at the address that stays.
    ///
    /// # Errors
    /// Everybody would be admitted there.
    fn check_admission(&mut self, running: &Config) -> Result<(), Problem> {
        let open = !self.wants_credentials() && !self.allow_anonymous;
        if open && !running.listen.is_local() {
            let what = format!(
                "without a key, everybody who reaches {} would be admitted until the next \
                 start; \"allow_anonymous\": true admits them",
                running.listen
            );
            return Err(Problem::new("/api_keys", what));
        }
        if !self.wants_credentials() && running.wants_credentials() {
            let what = format!(
                "there is neither a key nor an issuer any more: everybody who reaches {} is admitted now",
                running.listen
            );
            self.warnings.push(Problem::new("/api_keys", what));
        }
        Ok(())
    }

    /// Checks that no server needs a directory that there is not.
    ///
    /// # Errors
    /// A server pins tools, or wants sign-ins kept.
    fn check_without_state_dir(&self) -> Result<(), Problem> {
        for server in &self.upstreams {
            let (key, why) = if server.pin != Pin::Off {
                ("pin", "nothing is pinned")
            } else if server.oauth().is_some() {
                ("oauth", "no sign-in is kept")
            } else {
                continue;
            };
            let what =
                format!("there is no state_dir until the next start, and without one {why}");
            return Err(Problem::new(format!("/mcp_servers/{}/{key}", server.name), what));
        }
        Ok(())
    }

    /// Keeps the values that a start fixes; returns the keys that differ.
    fn keep_until_start(&mut self, running: &Config) -> Vec<&'static str> {
        let mut differ = Vec::new();
        let mut keep = |key, same: bool| {
            if !same {
                differ.push(key);
            }
        };
        keep("/listen", self.listen == running.listen);
        keep("/socket_mode", self.socket_mode == running.socket_mode);
        keep("/socket_group", self.socket_group == running.socket_group);
        keep("/admin_listen", self.admin_listen == running.admin_listen);
        keep("/otlp", self.otlp == running.otlp);
        keep("/limits", self.limits == running.limits);
        keep("/state_dir", self.state_dir == running.state_dir);
        keep("/first_list_ms", self.first_list == running.first_list);
        keep("/session_key", self.session_key == running.session_key);
        keep("/watch", self.watch == running.watch);
        keep("/log/format", self.log.format == running.log.format);
        self.listen = running.listen.clone();
        self.socket_mode = running.socket_mode;
        self.socket_group.clone_from(&running.socket_group);
        self.admin_listen = running.admin_listen.clone();
        self.otlp = running.otlp.clone();
        self.limits = running.limits.clone();
        self.state_dir = running.state_dir.clone();
        self.first_list = running.first_list;
        self.session_key = running.session_key;
        self.watch = running.watch;
        self.log.format = running.log.format;
        differ
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{KEYS, Overrides};

    fn config(text: &str) -> Config {
        Config::parse(text, &|_| None, &Overrides::default()).unwrap()
    }

    fn names(names: &[ServerName]) -> Vec<&str> {
        names.iter().map(ServerName::as_str).collect()
    }

    #[test]
    fn only_servers_that_differ_are_other_ones() {
        let running = config(
            r#"{"mcp_servers":{"a":{"url":"http://h/a"},"b":{"url":"http://h/b"},
                "c":{"url":"http://h/c"}}}"#,
        );
        let mut next = config(
            r#"{"mcp_servers":{"a":{"url":"http://h/a"},"d":{"url":"http://h/d"},
                "b":{"url":"http://h/b","timeout_ms":5},"c":{"url":"http://h/c","disabled":true}}}"#,
        );
        let changes = next.follow(&running).unwrap();
        assert_eq!(names(&changes.added), ["d"]);
        assert_eq!(names(&changes.removed), ["c"]);
        assert_eq!(names(&changes.changed), ["b"]);
        let has_same = |it: &Arc<_>| next.upstreams.iter().any(|new| Arc::ptr_eq(new, it));
        let same: Vec<bool> = running.upstreams.iter().map(has_same).collect();
        assert_eq!(same, [true, false, false]);
        assert!(!changes.is_nothing());
        assert_eq!(
            changes.to_string(),
            "servers added: d; servers removed: c; servers changed: b"
        );
    }

    #[test]
    fn a_key_ends_with_its_secret_and_not_with_its_rights() {
        let running = config(
            r#"{"api_keys":[{"name":"gone","key":"1"},{"name":"other","key":"2"},
                {"name":"less","key":"3"}],"mcp_servers":{}}"#,
        );
        let mut next = config(
            r#"{"api_keys":[{"name":"other","key":"1"},{"name":"less","key":"3","servers":[]}],
                "mcp_servers":{}}"#,
        );
        let changes = next.follow(&running).unwrap();
        let ends = ["gone", "other", "less"].map(|name| changes.ends(Some(name)));
        assert_eq!(ends, [true, true, false]);
        assert!(!changes.ends(None) && !changes.is_nothing());
        let mut none = config(r#"{"mcp_servers":{}}"#);
        assert!(none.follow(&running).unwrap().ends(Some("less")));
        assert!(next.follow(&none).unwrap().ends(None));
    }

    #[test]
    fn what_a_start_fixes_stays_and_is_named() {
        let running = config(r#"{"listen":"127.0.0.1:1","mcp_servers":{}}"#);
        let text = r#"{"listen":"127.0.0.1:2","watch":true,"limits":{"streams":7},
            "log":{"format":"json"},"mcp_servers":{}}"#;
        for _ in 0..2 {
            let mut next = config(text);
            let changes = next.follow(&running).unwrap();
            assert_eq!(changes.at_next_start, ["/listen", "/limits", "/watch", "/log/format"]);
            assert!(changes.is_nothing());
            assert_eq!(next.listen, running.listen);
        }
    }

    #[test]
    fn what_takes_effect_is_named() {
        let running = config(r#"{"mcp_servers":{}}"#);
        let text = r#"{"allow_anonymous":true,"trusted_proxies":["unix"],"prefix":"never",
            "log":{"access":true},"mcp_servers":{}}"#;
        let told = config(text).follow(&running).unwrap().to_string();
        assert_eq!(
            told,
            "access changed: allow_anonymous, trusted_proxies; other settings changed: prefix, log"
        );
    }

    /// A key that is not compared would change without notice.
    #[test]
    fn every_key_of_the_file_takes_effect_or_is_named() {
        let values = [
            ("listen", r#""127.0.0.1:2""#),
            ("api_keys", r#"[{"name":"k","key":"1"}]"#),
            (
                "oauth",
                r#"{"issuers":[{"issuer":"https://a.example","audience":"a"}],"rules":[{}]}"#,
            ),
            ("allowed_origins", r#"["https://a.example"]"#),
            ("allowed_hosts", r#"["a.example"]"#),
            ("allow_anonymous", "true"),
            ("strict_clients", "true"),
            ("socket_mode", r#""0600""#),
            ("socket_group", r#""users""#),
            ("public_url", r#""https://a.example/b""#),
            ("admin_listen", r#""127.0.0.1:3""#),
            ("otlp", r#"{"endpoint":"http://a.example"}"#),
            ("trusted_proxies", r#"["unix"]"#),
            ("transports", r#"{"rest":false}"#),
            ("prefix", r#""never""#),
            ("prefix_separator", r#""_""#),
            ("mcp_servers", r#"{"a":{"url":"http://h/a"}}"#),
            ("limits", r#"{"streams":7}"#),
            ("state_dir", r#""d""#),
            ("first_list_ms", "1"),
            ("session_key", r#""AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=""#),
            ("watch", "true"),
            ("log", r#"{"level":"debug"}"#),
        ];
        let named = values.iter().map(|(key, _)| *key);
        let mut named: Vec<_> = named.chain(["$schema", "mcpServers"]).collect();
        let mut keys = KEYS.to_vec();
        named.sort_unstable();
        keys.sort_unstable();
        assert_eq!(named, keys);
        let running = config(r#"{"mcp_servers":{}}"#);
        for (key, value) in values {
            let servers = if key == "mcp_servers" { "" } else { r#","mcp_servers":{}"# };
            let mut next = config(&format!(r#"{{"{key}":{value}{servers}}}"#));
            let changes = next.follow(&running).unwrap();
            let is_named = !changes.at_next_start.is_empty();
            assert!(is_named || !changes.is_nothing(), "{key}");
        }
    }

    #[test]
    fn pins_need_the_place_that_a_start_gives_them() {
        let running = config(r#"{"mcp_servers":{}}"#);
        let text =
            r#"{"state_dir":"/s","mcp_servers":{"a":{"url":"http://h/","pin":"enforce"}}}"#;
        assert_eq!(config(text).follow(&running).unwrap_err().at, "/mcp_servers/a/pin");
        config(text).follow(&config(r#"{"state_dir":"/t","mcp_servers":{}}"#)).unwrap();
    }

    #[test]
    fn sign_ins_need_the_place_that_a_start_gives_them() {
        let running = config(r#"{"mcp_servers":{}}"#);
        let text = r#"{"state_dir":"/s","mcp_servers":{"a":{"url":"http://h/","oauth":true}}}"#;
        assert_eq!(config(text).follow(&running).unwrap_err().at, "/mcp_servers/a/oauth");
        let kept = config(r#"{"state_dir":"/t","mcp_servers":{"a":{"url":"http://h/"}}}"#);
        let changes = config(text).follow(&kept).unwrap();
        assert_eq!(names(&changes.changed), ["a"]);
    }

    #[test]
    fn nobody_is_let_in_at_the_address_that_stays() {
        let running = config(
            r#"{"listen":"0.0.0.0:1","api_keys":[{"name":"k","key":"1"}],"mcp_servers":{}}"#,
        );
        let mut next = config(r#"{"listen":"127.0.0.1:1","mcp_servers":{}}"#);
        assert_eq!(next.follow(&running).unwrap_err().at, "/api_keys");
        let mut next =
            config(r#"{"listen":"127.0.0.1:1","allow_anonymous":true,"mcp_servers":{}}"#);
        next.follow(&running).unwrap();
    }
}
