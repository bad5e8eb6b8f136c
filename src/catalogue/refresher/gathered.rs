//! Makes one snapshot of all reports that wait. The cost of a snapshot grows with the lists of
//! all servers, so that a snapshot for each report would cost the square of them where many
//! servers report at once.

use std::time::Instant;

use crossbeam_channel::Receiver;

use super::super::differing::News;
use super::super::store::Reading;
use super::Refresher;
use crate::limits::CATALOGUE_GATHERED_WITHIN;
use crate::protocol::call::Kind;
use crate::protocol::server_name::ServerName;
use crate::upstream::{Event, Report};

/// Lists that were read.
pub(super) type Read = Vec<(ServerName, Kind, Reading)>;

impl Refresher {
    /// Takes a report and those that wait behind it, publishes, and notifies of the changes.
    pub(super) fn hear(&mut self, first: Report, reports: &Receiver<Report>) {
        let began = Instant::now();
        let mut read: Option<Read> = None;
        let mut next = Some(first);
        while let Some(report) = next.take() {
            if self.is_stopping() {
                return;
            }
            if is_of_view(&report.event) {
                // A view is compared with the shared lists, so these are published first.
                self.show(read.take());
                self.hear_view(report);
                self.shared.waiting().wake();
            } else {
                read.get_or_insert_default().extend(self.apply(report));
            }
            if began.elapsed() < CATALOGUE_GATHERED_WITHIN {
                next = reports.try_recv().ok();
            }
        }
        self.show(read);
    }

    /// Publishes, if there are new lists.
    fn show(&mut self, read: Option<Read>) {
        let Some(read) = read else { return };
        for (server, kind) in self.publish_read(read) {
            (self.tell)(&server, kind);
        }
        // Waiting requests are woken after sessions were notified: a session that one of them
        // opens is not notified of lists that it has seen.
        self.shared.waiting().wake();
    }

    /// Publishes lists that were read; returns the servers and kinds whose offered lists have
    /// changed, and those that are offered for the first time. An announcement or a new list
    /// changes nothing for clients where the gateway offers the same.
    pub(super) fn publish_read(&mut self, read: Read) -> Vec<(ServerName, Kind)> {
        let before = self.shared.current();
        self.publish();
        let after = self.shared.current();
        let mut told: Vec<(ServerName, Kind)> = Vec::new();
        for kind in Kind::ALL {
            let of_kind = || read.iter().filter(|(_, of, _)| *of == kind);
            let differs = of_kind().any(|(_, _, reading)| *reading != Reading::Same);
            let mut servers = Vec::new();
            if differs {
                servers = after.differing(&before, kind, News::Lists);
            }
            for (server, _, reading) in of_kind() {
                if *reading == Reading::First && !servers.contains(server) {
                    servers.push(server.clone());
                }
            }
            // One notification covers resources and templates.
            servers.retain(|server| {
                !told.iter().any(|(to, it)| to == server && it.changed() == kind.changed())
            });
            told.extend(servers.into_iter().map(|server| (server, kind)));
        }
        told
    }
}

fn is_of_view(event: &Event) -> bool {
    match event {
        Event::View { .. } | Event::ViewFailed | Event::NoView { .. } => true,
        Event::Ready { .. } | Event::Lists { .. } | Event::Failed { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Told;
    use super::*;
    use crate::wait::Interrupted;

    /// A refresher of so many servers, each of which has a report waiting.
    fn waiting(n_servers: usize) -> (Told, Receiver<Report>) {
        let servers: Vec<String> = (0..n_servers)
            .map(|n| format!(r#""s{n}":{{"url":"http://127.0.0.1:9/{n}"}}"#))
            .collect();
        let told = Told::new(&format!("{{{}}}", servers.join(",")));
        let (sender, reports) = crossbeam_channel::bounded(n_servers);
        for n in 0..n_servers {
            sender.send(told.report(n, &[(Kind::Tool, &["a", "b"])])).unwrap();
        }
        (told, reports)
    }

    #[test]
    fn reports_that_wait_become_one_snapshot() {
        let (mut told, reports) = waiting(100);
        let shared = told.refresher.shared.clone();
        let (heard, tells) = crossbeam_channel::bounded(100);
        let seen = shared.clone();
        told.refresher.tell = Box::new(move |server, _| {
            heard.send((server.to_string(), seen.current())).unwrap();
        });
        told.refresher.run(&reports, &crossbeam_channel::never());
        assert_eq!(shared.current().items(Kind::Tool).len(), 200);
        let tells: Vec<_> = tells.try_iter().collect();
        assert_eq!(tells.len(), 100);
        // A slow machine may need a few; a snapshot for each report would make a hundred.
        let mut snapshots: Vec<usize> =
            tells.iter().map(|(_, it)| std::sync::Arc::as_ptr(it).addr()).collect();
        snapshots.dedup();
        assert!(snapshots.len() < 20, "{} snapshots", snapshots.len());
    }

    #[test]
    fn once_the_process_ends_nothing_is_merged_any_more() {
        let (told, reports) = waiting(100);
        let shared = told.refresher.shared.clone();
        shared.waiting().end(Interrupted::Stopping);
        told.refresher.run(&reports, &crossbeam_channel::never());
        assert!(reports.is_empty() && shared.current().items(Kind::Tool).is_empty());
    }
}
