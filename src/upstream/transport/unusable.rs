//! An upstream whose configuration turned out not to be usable, such as a file of certificates
//! that is not there: every call says so.

use std::sync::Arc;
use std::time::Instant;

use crate::error::Stage;
use crate::protocol::call::{CallSink, Outcome, Outgoing, PrincipalId};
use crate::wait::Wait;

use crate::upstream::failure::{Failure, FailureKind, Refusal};
use crate::upstream::http_client::HttpConnection;
use crate::upstream::session::context::{Opened, Transport};

/// The text says what is wrong.
pub(crate) struct Unusable(pub(crate) String);

impl Unusable {
    fn failure(&self) -> Failure {
        Failure::new(FailureKind::Refused(Refusal::Plain), Stage::Connect, self.0.clone())
    }
}

impl Transport for Unusable {
    fn open(&self, _: &mut HttpConnection, _: &Arc<Wait>) -> Result<Opened, Failure> {
        Err(self.failure())
    }

    fn request(
        &self,
        _: &mut HttpConnection,
        _: &Outgoing<'_>,
        _: &Arc<Wait>,
        _: &dyn CallSink,
    ) -> Result<Outcome, Failure> {
        Err(self.failure())
    }

    fn request_open(
        &self,
        _: &mut HttpConnection,
        _: &Outgoing<'_>,
        _: &Arc<Wait>,
        _: &dyn CallSink,
    ) -> Result<Outcome, Failure> {
        Err(self.failure())
    }

    fn forget(&self, _: u64) {}

    fn backing_off(&self, _: &Failure, _: Instant) {}

    fn tell(&self, _: &PrincipalId, _: String) {}

    fn is_open(&self) -> bool {
        false
    }

    fn close(&self) {}

    fn transport(&self) -> &'static str {
        "http"
    }
}
