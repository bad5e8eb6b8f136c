//! An upstream whose configuration turned out not to be usable, such as a file of certificates
//! that is not there: every call says so.

use std::sync::Arc;
use std::time::Instant;

use crate::error::Stage;
use crate::protocol::call::{CallSink, Outcome, Outgoing, PrincipalId};
use crate::wait::Wait;

use crate::upstream::failure::{Kind, Refusal, Trouble};
use crate::upstream::http_client::Lane;
use crate::upstream::session::context::{Link, Opened};

/// The text says what is wrong.
pub(crate) struct Unusable(pub(crate) String);

impl Unusable {
    fn trouble(&self) -> Trouble {
        Trouble::new(Kind::Refused(Refusal::Plain), Stage::Connect, self.0.clone())
    }
}

impl Link for Unusable {
    fn open(&self, _: &mut Lane, _: &Arc<Wait>) -> Result<Opened, Trouble> {
        Err(self.trouble())
    }

    fn request(
        &self,
        _: &mut Lane,
        _: &Outgoing<'_>,
        _: &Arc<Wait>,
        _: &mut dyn CallSink,
    ) -> Result<Outcome, Trouble> {
        Err(self.trouble())
    }

    fn request_open(
        &self,
        _: &mut Lane,
        _: &Outgoing<'_>,
        _: &Arc<Wait>,
        _: &mut dyn CallSink,
    ) -> Result<Outcome, Trouble> {
        Err(self.trouble())
    }

    fn forget(&self, _: u64) {}

    fn backing_off(&self, _: &Trouble, _: Instant) {}

    fn tell(&self, _: &PrincipalId, _: String) {}

    fn is_open(&self) -> bool {
        false
    }

    fn close(&self) {}

    fn transport(&self) -> &'static str {
        "http"
    }
}
