use super::*;
use rabia_bank_messages::bank::{AccountId, Amount, Command, Operation, Query, Success};
use rabia_bank_messages::client::Feed;

const LIMITS: Limits = Limits { in_flight: 4, timeout: SECOND };
const SECOND: Duration = Duration::from_secs(1);
const NOW: Duration = Duration::ZERO;
const DRAWN: SessionKey = SessionKey([7; 16]);
const NAMED: SessionKey = SessionKey([9; 16]);

type Outs = Vec<Out<&'static str>>;

fn new() -> Session<&'static str> {
    Session::new(LIMITS, || Some(DRAWN))
}

fn renewing() -> Session<&'static str> {
    Session::renewing(LIMITS, || Some(DRAWN))
}

fn deposit() -> Command {
    Command::One(Operation::Deposit { account_id: AccountId::from("a"), amount: Amount::new(1) })
}

fn given(number: u64) -> Number {
    Number::Given { number, acknowledged: 0 }
}

fn command(session: &mut Session<&'static str>, asker: &'static str, number: Number) -> Outs {
    let mut out = Vec::new();
    session.command(NOW, asker, number, deposit(), &mut out);
    out
}

fn answer(session: &mut Session<&'static str>, now: Duration, tag: u64, result: Result<Done, Refusal>) -> Outs {
    let mut out = Vec::new();
    session.answered(now, Answered { tag, slot: Some(1), index: Some(0), replayed: false, result }, &mut out);
    out
}

fn open_with(session: &mut Session<&'static str>, tag: u64) -> Outs {
    answer(session, NOW, tag, Ok(Done::Opened { session: 3, new: true }))
}

/// An open session that has seen no number.
fn opened(mut session: Session<&'static str>) -> Session<&'static str> {
    session.open(NOW, NAMED, None, &mut Vec::new());
    open_with(&mut session, 1);
    session
}

fn gone() -> Result<Done, Refusal> {
    Err(Refusal::unknown(ErrorCode::SessionExpired, "gone"))
}

fn applied() -> Result<Done, Refusal> {
    Ok(Done::Success(Success::Balance { balance: 1 }))
}

/// What a command or a query of the bank says, in few words.
fn words(outs: &Outs) -> Vec<String> {
    let word = |out: &Out<&str>| match out {
        Out::Submit { tag, header: RequestHeader { session, number, acknowledged, .. }, action } => match action {
            Action::Open => format!("{tag} opens"),
            Action::Close => format!("{tag} closes {session}"),
            Action::Command(_) | Action::Admin(_) => {
                format!("{tag} is {number} in {session}, {acknowledged} acknowledged")
            }
        },
        Out::Ask { tag, .. } => format!("{tag} asks"),
        Out::Subscribe { tag, .. } => format!("{tag} subscribes"),
        Out::Follow { tag, next, .. } => format!("{tag} follows from {next}"),
        Out::Answer { asker, reply: Reply { result: Ok(_), .. }, .. } => format!("{asker}: done"),
        Out::Answer { asker, reply: Reply { result: Err(refusal), .. }, .. } => {
            format!("{asker}: {} {:?}", refusal.code, refusal.outcome)
        }
        Out::Opened { session, .. } => format!("{} is open", session.number),
        Out::NotOpened { refusal, .. } => format!("not opened: {}", refusal.code),
        Out::Entries { subscription, entries, next } => {
            format!("{subscription} gets {} up to {next}", entries.len())
        }
        Out::Closed => "closed".into(),
    };
    outs.iter().map(word).collect()
}

#[test]
fn commands_wait_until_the_session_is_open_and_go_out_in_their_order() {
    let mut session = renewing();
    assert_eq!(words(&command(&mut session, "a", Number::Next)), ["2 opens"]);
    assert_eq!(words(&command(&mut session, "b", Number::Next)), [""; 0]);
    let open = open_with(&mut session, 2);
    assert_eq!(words(&open), ["3 is open", "1 is 1 in 3, 0 acknowledged", "3 is 2 in 3, 0 acknowledged"]);
    assert_eq!(words(&answer(&mut session, NOW, 3, applied())), ["b: done"]);
    assert_eq!(words(&command(&mut session, "c", Number::Next)), ["4 is 3 in 3, 0 acknowledged"]);
    assert_eq!(words(&answer(&mut session, NOW, 1, applied())), ["a: done"]);
    assert_eq!(words(&command(&mut session, "d", Number::Next)), ["5 is 4 in 3, 2 acknowledged"]);
}

#[test]
fn a_session_that_was_given_a_number_acknowledges_nothing_of_itself() {
    let mut session = opened(new());
    assert_eq!(words(&command(&mut session, "a", given(5))), ["2 is 5 in 3, 0 acknowledged"]);
    answer(&mut session, NOW, 2, applied());
    assert_eq!(words(&command(&mut session, "b", Number::Next)), ["3 is 6 in 3, 0 acknowledged"]);
    let own = Number::Given { number: 7, acknowledged: 7 };
    assert_eq!(words(&command(&mut session, "c", own)), ["c: malformed Refused"]);
}

#[test]
fn what_is_beyond_the_limit_is_busy() {
    let mut session = renewing();
    for asker in ["a", "b", "c"] {
        command(&mut session, asker, given(1));
    }
    // The opening counts, too.
    assert_eq!(words(&command(&mut session, "d", given(2))), ["d: busy Refused"]);
    assert_eq!(words(&command(&mut session, "d", given(2))), ["d: busy Unknown"], "it may be a retry");
    assert_eq!(words(&command(&mut session, "d", Number::Next)), ["d: busy Refused"]);
    let mut out = Vec::new();
    session.query(NOW, "e", Query::GetStatus {}, ReadLevel::Local, &mut out);
    session.subscribe(NOW, "f", 1, Feed::default(), ReadLevel::Local, &mut out);
    assert_eq!(words(&out), ["e: busy Refused", "f: busy Refused"]);
}

#[test]
fn a_refusal_of_this_node_says_nothing_of_an_earlier_attempt() {
    let busy = || Err(Refusal::refused(ErrorCode::Busy, "full"));
    // Somebody else may have spoken in a session whose key was named.
    let mut session = opened(new());
    command(&mut session, "a", given(1));
    assert_eq!(words(&answer(&mut session, NOW, 2, busy())), ["a: busy Unknown"]);
    // Nobody has in one whose key was drawn.
    let mut session = new();
    command(&mut session, "a", given(1));
    open_with(&mut session, 2);
    assert_eq!(words(&answer(&mut session, NOW, 1, busy())), ["a: busy Refused"]);
    command(&mut session, "a", given(1));
    assert_eq!(words(&answer(&mut session, NOW, 3, busy())), ["a: busy Unknown"]);
    // A refusal by the bank settles it either way.
    command(&mut session, "a", given(1));
    let refused = Err(Refusal::refused(ErrorCode::InsufficientFunds, "poor"));
    assert_eq!(words(&answer(&mut session, NOW, 4, refused)), ["a: insufficient_funds Refused"]);
}

#[test]
fn a_session_that_renews_itself_goes_on_in_another() {
    let mut session = renewing();
    command(&mut session, "a", Number::Next);
    command(&mut session, "b", Number::Next);
    open_with(&mut session, 2);
    assert_eq!(words(&answer(&mut session, NOW, 1, gone())), ["a: session_expired Refused"]);
    assert_eq!(words(&command(&mut session, "c", Number::Next)), ["5 opens"]);
    assert_eq!(words(&answer(&mut session, NOW, 3, gone())), ["b: session_expired Refused"], "of the session before");
    let open = answer(&mut session, NOW, 5, Ok(Done::Opened { session: 8, new: true }));
    assert_eq!(words(&open), ["8 is open", "4 is 3 in 8, 2 acknowledged"]);
    assert_eq!(session.ended(), None);
}

#[test]
fn one_that_does_not_stays_ended() {
    let mut numbered = renewing();
    command(&mut numbered, "a", given(1));
    open_with(&mut numbered, 2);
    let mut named = opened(new());
    command(&mut named, "a", Number::Next);
    for (mut session, tag) in [(numbered, 1), (named, 2)] {
        assert_eq!(words(&answer(&mut session, SECOND, tag, gone())), ["a: session_expired Unknown"]);
        assert_eq!(session.ended(), Some(SECOND));
        assert_eq!(words(&command(&mut session, "b", given(2))), ["b: session_expired Unknown"]);
    }
}

#[test]
fn an_opening_that_is_turned_away_takes_the_commands_along() {
    let mut session = Session::named(LIMITS, || None, NAMED);
    assert_eq!(words(&command(&mut session, "a", Number::Next)), ["2 opens"]);
    command(&mut session, "b", given(9));
    let full = || Err(Refusal::refused(ErrorCode::TooManySessions, "full"));
    let not = answer(&mut session, NOW, 2, full());
    assert_eq!(
        words(&not),
        ["a: too_many_sessions Refused", "b: too_many_sessions Unknown", "not opened: too_many_sessions"]
    );
    assert_eq!(words(&command(&mut session, "a", Number::Next)), ["5 opens"], "the next one tries again");
    assert_eq!(
        words(&answer(&mut session, NOW, 5, gone())),
        ["a: session_expired Unknown", "not opened: session_expired"]
    );
    assert_eq!(session.ended(), Some(NOW), "the key is used up");
}

#[test]
fn a_machine_without_random_keys_executes_nothing() {
    let mut session: Session<&str> = Session::new(LIMITS, || None);
    assert_eq!(words(&command(&mut session, "a", given(1))), ["a: busy Refused"]);
}

#[test]
fn after_its_deadline_a_command_is_unknown_and_a_query_refused() {
    let mut session = opened(new());
    let mut out = Vec::new();
    command(&mut session, "a", given(1));
    session.query(NOW, "b", Query::GetStatus {}, ReadLevel::AtLeast(8), &mut out);
    session.query(NOW, "c", Query::GetStatus {}, ReadLevel::AtLeast(7), &mut out);
    out.clear();
    session.check(SECOND - Duration::from_nanos(1), 7, &mut out);
    assert_eq!(words(&out), [""; 0]);
    session.check(SECOND, 7, &mut out);
    assert_eq!(words(&out), ["a: no_quorum Unknown", "b: not_yet_applied Refused", "c: no_quorum Refused"]);
    assert!(session.is_idle());
    assert_eq!(words(&answer(&mut session, SECOND, 2, applied())), [""; 0], "nobody waits any more");
}

#[test]
fn an_opening_for_commands_goes_on_waiting_and_one_of_a_hello_does_not() {
    let mut session = new();
    command(&mut session, "a", given(1));
    let mut out = Vec::new();
    session.check(SECOND, 0, &mut out);
    assert_eq!(words(&out), ["a: no_quorum Unknown"]);
    assert!(!session.is_idle());
    assert_eq!(words(&open_with(&mut session, 2)), ["3 is open"], "its command is not said any more");
    let mut session = new();
    session.open(NOW, NAMED, Some("hello"), &mut Vec::new());
    out.clear();
    session.check(SECOND, 0, &mut out);
    assert_eq!(words(&out), ["not opened: no_quorum"]);
}

#[test]
fn a_subscription_gets_a_page_when_it_has_asked_for_more() {
    let mut session = new();
    let mut out = Vec::new();
    session.subscribe(NOW, "a", 5, Feed::default(), ReadLevel::Local, &mut out);
    session.more(5, &mut out);
    assert_eq!(words(&out), ["1 subscribes"], "the bank has not said where it begins");
    let begun = answer(&mut session, NOW, 1, Ok(Done::Subscribed { from: 7, answer: Success::Subscribed { from: 7 } }));
    assert_eq!(words(&begun), ["a: done"]);
    out.clear();
    session.more(5, &mut out);
    session.more_of_all(&mut out);
    assert_eq!(words(&out), ["2 follows from 7"], "once");
    let page = answer(&mut session, NOW, 2, Ok(Done::Followed { entries: Vec::new(), next: 9 }));
    assert_eq!(words(&page), ["5 gets 0 up to 9"]);
    out.clear();
    session.more_of_all(&mut out);
    session.unsubscribe(5);
    assert_eq!(words(&out), ["3 follows from 9"]);
    let page = answer(&mut session, NOW, 3, Ok(Done::Followed { entries: Vec::new(), next: 11 }));
    assert_eq!(words(&page), [""; 0]);
    // One that is refused is none.
    session.subscribe(NOW, "b", 6, Feed::default(), ReadLevel::Local, &mut out);
    let refused = Err(Refusal::refused(ErrorCode::AccountNotFound, "nobody"));
    assert_eq!(words(&answer(&mut session, NOW, 4, refused)), ["b: account_not_found Refused"]);
    out.clear();
    session.more_of_all(&mut out);
    assert_eq!(words(&out), [""; 0]);
}

#[test]
fn a_command_that_its_asker_may_not_hear_of_may_be_executed_also_if_it_is_the_only_attempt() {
    let mut session = new();
    command(&mut session, "a", given(1));
    command(&mut session, "b", given(2));
    open_with(&mut session, 2);
    assert_eq!(words(&answer(&mut session, NOW, 1, Ok(Done::Unseen))), ["a: not_authorised Unknown"]);
    let kept_out = Err(Refusal::unknown(ErrorCode::NotAuthorised, "the token is not in force"));
    assert_eq!(words(&answer(&mut session, NOW, 3, kept_out)), ["b: not_authorised Refused"]);
}

#[test]
fn a_session_closes_behind_what_waits() {
    let mut session = opened(new());
    command(&mut session, "a", given(1));
    let mut out = Vec::new();
    session.close(NOW, &mut out);
    assert_eq!(words(&out), [""; 0]);
    assert_eq!(words(&command(&mut session, "b", given(2))), ["b: stopping Unknown"]);
    assert_eq!(words(&answer(&mut session, NOW, 2, applied())), ["a: done", "3 closes 3"]);
    assert_eq!(words(&answer(&mut session, NOW, 3, Ok(Done::Closed))), ["closed"]);
    session.check(SECOND, 0, &mut out);
    assert_eq!(words(&out), [""; 0], "once");
    // One that was never opened has nothing to close.
    session = new();
    session.close(NOW, &mut out);
    assert_eq!(words(&out), ["closed"]);
}

#[test]
fn a_session_that_can_not_be_closed_in_time_is_left() {
    let mut session = opened(new());
    let mut out = Vec::new();
    session.close(NOW, &mut out);
    session.check(SECOND, 0, &mut out);
    assert_eq!(words(&out), ["2 closes 3", "closed"]);
    // So is one that is not open yet.
    let mut session = renewing();
    command(&mut session, "a", Number::Next);
    out.clear();
    session.close(NOW, &mut out);
    session.check(SECOND, 0, &mut out);
    assert_eq!(words(&out), ["a: no_quorum Unknown", "not opened: no_quorum", "closed"]);
}

#[test]
fn whoever_waits_when_the_node_stops_hears_it() {
    let mut session = new();
    command(&mut session, "a", given(1));
    let mut out = Vec::new();
    session.query(NOW, "b", Query::GetStatus {}, ReadLevel::Local, &mut out);
    out.clear();
    session.stop("the node is stopping", &mut out);
    assert_eq!(words(&out), ["a: stopping Unknown", "b: stopping Refused"]);
    assert!(session.is_idle());
}
