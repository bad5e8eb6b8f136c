//! The state's decisions, as tables.

use super::*;
use crate::config::Secret;
use crate::limits::{REFUSALS_BELIEVED, SERVER_AWAY_BELIEVED};
use crate::oauth::scope::Scopes;

use super::super::kept::tests::kept;

/// The time at which tokens were had: see [`kept`].
const HAD_AT: u64 = 1000;
const LIFE: u64 = 3600;

/// Events before a request comes.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// Tokens come, with a refresh token.
    Had,
    /// The same, and the sign-in had no refresh token.
    HadOnce,
    /// Tokens come, which are not good for what a request needs.
    HadWanting,
    /// The server refuses the present token, and the question for another one ends.
    Refused,
    /// A question begins.
    Asking,
    /// A question fails, and may be asked again later.
    Failed,
    /// The server could not be asked how it wants credentials.
    Away,
    NeedsSignIn,
    NeedsRights,
    /// A page is open for the person.
    PageOpened,
    /// The token is due to be renewed.
    UntilDue,
    /// The token ends.
    UntilEnd,
    /// So long nothing that is known is believed.
    Rested,
}

struct Scene {
    state: State,
    now: Instant,
    time: u64,
}

impl Scene {
    fn of(events: &[Event]) -> Scene {
        let (state, now) = (State::default(), Instant::now());
        let mut scene = Scene { state, now, time: HAD_AT };
        events.iter().for_each(|event| scene.pass(*event));
        scene
    }

    fn pass(&mut self, event: Event) {
        let (state, now) = (&mut self.state, self.now);
        let had = Kept { access_token: Secret::new("t".to_owned()), ..kept(Some(LIFE)) };
        match event {
            Event::Had => state.adopt(had, None),
            Event::HadOnce => state.adopt(Kept { refresh_token: None, ..had }, None),
            Event::HadWanting => {
                state.adopt(Kept { wanted: Scopes::parse("write"), ..had }, None);
            }
            Event::Refused => {
                assert!(state.begin(&Want::Refused(Some(state.number)), now));
                state.is_asking = false;
            }
            Event::Asking => assert!(state.begin(&Want::Renewal, now)),
            Event::Failed => state.failed("down", Remedy::TryLater, now),
            Event::Away => state.away_until = Some(now + SERVER_AWAY_BELIEVED),
            Event::NeedsSignIn => {
                state.need_sign_in("ended", Need::Credentials, now);
            }
            Event::NeedsRights => {
                state.need_sign_in("more", Need::Rights, now);
            }
            Event::PageOpened => state.pages.opened(now, REFUSALS_BELIEVED * 9),
            Event::UntilDue => self.time = HAD_AT + LIFE - 60,
            Event::UntilEnd => self.time = HAD_AT + LIFE,
            Event::Rested => self.now += REFUSALS_BELIEVED,
        }
    }

    fn at(&self) -> Moment {
        Moment { now: self.now, time: self.time }
    }
}

fn fails(kind: Unauthorized, why: &str) -> Reason {
    Reason { kind, why: why.to_owned() }
}

#[test]
fn what_a_request_does_follows_from_what_is_known() {
    use Event::{
        Asking, Away, Failed, Had, HadOnce, HadWanting, NeedsRights, NeedsSignIn, PageOpened,
        Refused, Rested, UntilDue, UntilEnd,
    };
    use TokenSource::{Gateway, Machine, User};
    use Unauthorized::{NeedsSignIn as Needed, SigningIn, Unavailable};
    let uses = |number, is_due| Step::Use { number, is_due };
    let fail = |kind, why: &str| Step::Fail(fails(kind, why));
    let renew = || Step::Renew(Want::Renewal);
    let renew_refused = || Step::Renew(Want::Refused(None));
    for (events, source, step) in [
        (&[][..], Gateway, Step::Ask),
        (&[], Machine, renew()),
        (&[Away], Machine, Step::Ask),
        (&[Away, Rested], Machine, renew()),
        (&[Failed], Machine, fail(Unavailable, "down")),
        (&[Failed, Rested], Machine, renew()),
        (&[], User, fail(Needed, NOBODY_HAS_SIGNED_IN)),
        (&[Asking], User, Step::Wait),
        (&[Had], Gateway, uses(1, false)),
        (&[Had, Asking], Gateway, uses(1, false)),
        (&[Had, UntilDue], User, uses(1, true)),
        (&[Had, UntilDue, Asking], Gateway, uses(1, false)),
        (&[Had, UntilDue, Failed], Gateway, uses(1, false)),
        (&[Had, UntilDue, Failed, Rested], Gateway, uses(1, true)),
        (&[Had, UntilDue, NeedsSignIn], Gateway, uses(1, false)),
        // A request that needs more rights says nothing of the token.
        (&[Had, UntilDue, NeedsRights], Gateway, uses(1, true)),
        (&[Had, NeedsRights, PageOpened, UntilEnd], Gateway, renew()),
        (&[HadOnce, UntilDue], Gateway, uses(1, false)),
        (&[HadOnce, UntilDue], Machine, uses(1, true)),
        // One that is over is renewed, or a person is asked for another one.
        (&[Had, UntilEnd], Gateway, renew()),
        (&[Had, UntilEnd, Asking], Gateway, Step::Wait),
        (&[HadOnce, UntilEnd], Gateway, renew()),
        (&[HadOnce, UntilEnd], User, renew()),
        (&[HadOnce, UntilEnd], Machine, renew()),
        (&[HadOnce, UntilEnd, NeedsSignIn], Gateway, fail(Needed, "ended")),
        (&[HadOnce, UntilEnd, NeedsSignIn, PageOpened], Gateway, fail(SigningIn, "ended")),
        (&[HadOnce, UntilEnd, NeedsSignIn, Rested], Gateway, renew()),
        (&[Had, UntilEnd, Failed], Gateway, fail(Unavailable, "down")),
        (&[Had, UntilEnd, Failed, Rested], User, renew()),
        (&[Had, UntilEnd, NeedsSignIn], User, fail(Needed, "ended")),
        // One that was refused is renewed, but not when all are refused.
        (&[Had, Refused], Gateway, renew_refused()),
        (&[Had, Refused, Failed], Gateway, fail(Unavailable, "down")),
        (&[HadOnce, Refused], Gateway, Step::Ask),
        (&[HadOnce, Refused, NeedsSignIn, Rested], User, fail(Needed, "ended")),
        (&[Had, Refused, Had, Refused], Gateway, Step::Ask),
        (&[Had, Refused, Had, Refused], Machine, Step::Ask),
        (&[Had, Refused, Had, Refused, Failed], Machine, fail(Unavailable, "down")),
        // After a while one more is tried.
        (&[Had, Refused, Had, Refused, Failed, Rested], Machine, renew_refused()),
        (&[Had, Refused, Had, Refused, NeedsSignIn, Rested], User, renew_refused()),
        (&[Had, Refused, Had, Refused, Rested, Had, Refused], Machine, Step::Ask),
        // A renewal does not give a request the rights that it needed.
        (&[HadWanting, NeedsRights, HadWanting], Gateway, uses(2, false)),
    ] {
        let scene = Scene::of(events);
        let told = format!("{events:?} {source:?}");
        assert_eq!(scene.state.step(source, scene.at(), false), step, "{told}");
        // A request renews once, and uses what has come of that, or fails.
        let second = scene.state.step(source, scene.at(), true);
        assert!(!matches!(second, Step::Renew(_)), "{told}");
    }
}

#[test]
fn another_token_is_there_where_it_is_good_and_not_the_refused_one() {
    use Event::{Asking, Failed, Had, HadOnce, NeedsSignIn, Refused, UntilEnd};
    use Unauthorized::{NeedsSignIn as Needed, Unavailable};
    for (events, number, has_asked, renewal) in [
        (&[][..], None, false, Renewal::Submit),
        (&[], None, true, Renewal::TryAgain),
        (&[Asking], None, true, Renewal::Wait),
        (&[Had], None, false, Renewal::IsThere),
        (&[Had], Some(1), false, Renewal::Submit),
        (&[Had, Had], Some(1), false, Renewal::IsThere),
        (&[Had, Asking], Some(1), false, Renewal::Wait),
        (&[Had, Refused], Some(1), false, Renewal::Submit),
        // Nobody has said that it is over but the clock.
        (&[HadOnce, UntilEnd], None, false, Renewal::Submit),
        (&[HadOnce, UntilEnd, NeedsSignIn], None, true, Renewal::Fail(fails(Needed, "ended"))),
        (&[Had, Failed], Some(1), true, Renewal::Fail(fails(Unavailable, "down"))),
    ] {
        let scene = Scene::of(events);
        let told = format!("{events:?} {number:?} {has_asked}");
        assert_eq!(scene.state.another(number, scene.at(), has_asked), renewal, "{told}");
    }
}

#[test]
fn a_renewal_is_due_before_the_end_and_not_before_it_may_be_tried_again() {
    use Event::{Failed, Had, HadOnce, NeedsRights, NeedsSignIn, Refused, UntilDue};
    let seconds = |n| Some(Duration::from_secs(n));
    for (events, source, left) in [
        (&[][..], TokenSource::Gateway, None),
        (&[Had], TokenSource::Gateway, seconds(LIFE - 60)),
        (&[HadOnce], TokenSource::Gateway, None),
        (&[HadOnce], TokenSource::Machine, seconds(LIFE - 60)),
        (&[Had, Refused], TokenSource::Gateway, None),
        (&[Had, UntilDue], TokenSource::User, seconds(0)),
        (&[Had, UntilDue, Failed], TokenSource::User, Some(OAUTH_PAUSE_MIN)),
        (&[Had, UntilDue, NeedsSignIn], TokenSource::User, Some(NEED_BELIEVED)),
        (&[Had, UntilDue, NeedsRights], TokenSource::User, seconds(0)),
    ] {
        let scene = Scene::of(events);
        let due = scene.state.renew_at(source, scene.at());
        assert_eq!(due.map(|at| at - scene.now), left, "{events:?} {source:?}");
    }
}

#[test]
fn the_status_says_who_must_do_something() {
    use Event::{Failed, Had, HadOnce, NeedsRights, NeedsSignIn, Refused, UntilEnd};
    for (events, source, word, why) in [
        (&[][..], TokenSource::Gateway, "unknown", ""),
        (&[], TokenSource::Machine, "unknown", ""),
        (&[], TokenSource::User, "needed", NOBODY_HAS_SIGNED_IN),
        (&[Had], TokenSource::Gateway, "signed_in", ""),
        (&[Had, NeedsRights], TokenSource::Gateway, "signed_in", ""),
        (&[Had, UntilEnd], TokenSource::Gateway, "signed_in", ""),
        (&[HadOnce, UntilEnd], TokenSource::Machine, "signed_in", ""),
        (&[HadOnce, UntilEnd], TokenSource::Gateway, "needed", TOKEN_HAS_ENDED),
        (&[HadOnce, UntilEnd], TokenSource::User, "needed", TOKEN_HAS_ENDED),
        (&[Had, UntilEnd, NeedsSignIn], TokenSource::Gateway, "needed", "ended"),
        (&[Had, UntilEnd, Failed], TokenSource::User, "failing", "down"),
        (&[Had, UntilEnd, NeedsRights], TokenSource::User, "signed_in", ""),
        (&[Had, Refused, NeedsSignIn], TokenSource::Gateway, "needed", "ended"),
        (&[Had, Refused, Failed], TokenSource::Machine, "failing", "down"),
    ] {
        let scene = Scene::of(events);
        let status = scene.state.status(source, scene.time, None);
        assert_eq!(status.as_str(), word, "{events:?} {source:?}");
        let (SignInStatus::NeedsSignIn { why: told } | SignInStatus::Failing { why: told }) =
            status
        else {
            assert_eq!(why, "", "{events:?} {source:?}");
            continue;
        };
        assert_eq!(told, why, "{events:?} {source:?}");
    }
    let scene = Scene::of(&[HadOnce, UntilEnd]);
    let until = Some(SystemTime::now());
    assert_eq!(scene.state.status(TokenSource::User, scene.time, until).as_str(), "under_way");
}

#[test]
fn a_token_that_is_over_is_enough_while_it_can_be_renewed_without_a_person() {
    use Event::{
        Failed, Had, HadOnce, HadWanting, NeedsRights, NeedsSignIn, Refused, UntilEnd,
    };
    for (events, has_enough) in [
        (&[][..], false),
        (&[Had], true),
        (&[HadWanting], false),
        (&[Had, Refused], false),
        (&[Had, NeedsSignIn], true),
        (&[Had, UntilEnd], true),
        (&[Had, UntilEnd, Failed], true),
        (&[Had, UntilEnd, NeedsRights], true),
        (&[HadOnce, UntilEnd], false),
        (&[Had, UntilEnd, NeedsSignIn], false),
    ] {
        let scene = Scene::of(events);
        assert_eq!(scene.state.has_enough(scene.time), has_enough, "{events:?}");
    }
}

#[test]
fn a_renewal_ends_no_sign_in_for_more_rights() {
    use Event::{Had, HadWanting, NeedsRights, PageOpened};
    for (events, need, is_waited_for) in [
        (&[HadWanting, NeedsRights, PageOpened][..], Need::Rights, true),
        (&[HadWanting, NeedsRights, PageOpened, HadWanting], Need::Rights, true),
        (&[HadWanting, NeedsRights, PageOpened, Had], Need::Credentials, false),
    ] {
        let scene = Scene::of(events);
        assert_eq!(scene.state.need(), need, "{events:?}");
        assert_eq!(scene.state.pages.is_waited_for(scene.now), is_waited_for, "{events:?}");
    }
}

#[test]
fn pauses_grow_up_to_a_bound_and_are_long_where_somebody_must_change_something() {
    let mut scene = Scene::of(&[]);
    let pause = |state: &State, now| match &state.trouble {
        Trouble::Failing { until, .. } => *until - now,
        Trouble::None | Trouble::NeedsSignIn { .. } => panic!("no failure"),
    };
    for n in 0..10 {
        scene.pass(Event::Failed);
        let expected = (OAUTH_PAUSE_MIN * 2_u32.pow(n)).min(OAUTH_PAUSE_MAX);
        assert_eq!(pause(&scene.state, scene.now), expected);
    }
    let mut scene = Scene::of(&[]);
    scene.state.failed("no", Remedy::Nothing, scene.now);
    assert_eq!(pause(&scene.state, scene.now), OAUTH_PAUSE_MAX);
}
