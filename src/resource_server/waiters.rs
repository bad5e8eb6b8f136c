//! Places of requests that wait for an issuer. They are shared by the addresses of the clients,
//! since nothing else is known of them yet; clients on this machine share one.

use std::net::{IpAddr, Ipv4Addr};

use crate::fair_shares::Shares;
use crate::protocol::call::PrincipalId;
use crate::sync::Mutex;

/// A number of places.
#[derive(Debug)]
pub(super) struct Waiters(Mutex<Shares<PrincipalId>>);

/// A place, which is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place<'a> {
    of: &'a Waiters,
    who: PrincipalId,
}

impl Waiters {
    pub(super) fn new(places: usize) -> Waiters {
        Waiters(Mutex::new(Shares::new(places)))
    }

    /// A place for a client at that address; none where all are taken, or the rest is for others.
    pub(super) fn place(&self, peer: Option<IpAddr>) -> Option<Place<'_>> {
        let who = PrincipalId::of_address(peer.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        self.0.lock().take(&who, 1).ok()?;
        Some(Place { of: self, who })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.of.0.lock().give_back(&self.who, 1);
    }
}
