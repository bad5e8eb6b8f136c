//! What the authorizations of all servers share: threads, files, sign-ins under way, and the facts of
//! this gateway.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ring::rand::SystemRandom;

use crate::limits::EXCHANGES_PATIENCE;
use crate::sync::RwLock;
use crate::upstream::http_client::fetcher::RunningFetches;

use super::Setup;
use super::browser::Browsers;
use super::exchanges::Exchanges;
use super::sign_ins::SignIns;
use super::store::Store;
use super::workers::Workers;

/// See above. When it is dropped, all of it ends.
pub(super) struct Shared {
    setup: RwLock<Arc<Setup>>,
    pub(super) store: Store,
    pub(super) workers: Workers,
    pub(super) running: Arc<RunningFetches>,
    pub(super) exchanges: Exchanges,
    pub(super) sign_ins: SignIns,
    pub(super) browsers: Browsers,
    pub(super) random: SystemRandom,
}

impl Shared {
    pub(super) fn new(setup: Setup) -> Shared {
        let running = Arc::<RunningFetches>::default();
        Shared {
            store: Store::new(setup.state_dir.clone(), running.clone()),
            setup: RwLock::new(Arc::new(setup)),
            workers: Workers::new(),
            running,
            exchanges: Exchanges::default(),
            sign_ins: SignIns::default(),
            browsers: Browsers::default(),
            random: SystemRandom::new(),
        }
    }

    /// The facts of this gateway, as the present configuration has them.
    pub(super) fn setup(&self) -> Arc<Setup> {
        self.setup.read().clone()
    }

    pub(super) fn set_up(&self, setup: Setup) {
        *self.setup.write() = Arc::new(setup);
    }

    /// Seconds since 1970.
    #[expect(clippy::unused_self, reason = "the clock belongs to all of them")]
    pub(super) fn now(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
    }

    /// Ends the threads and every sign-in that is under way, in bounded time.
    pub(super) fn stop(&self) {
        // A refresh token that is used up here, with its answer unread, would be used a second time
        // by the next process, and the authorization server would end the whole sign-in.
        self.exchanges.finish(EXCHANGES_PATIENCE);
        self.running.stop();
        self.browsers.stop();
        self.sign_ins.clear();
        self.workers.stop();
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop();
    }
}
