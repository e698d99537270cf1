//! The messages between the actors of a node, one file an inbox.
//!
//! A file has what its actor is told, what travels with that, and the inbox: a recipient for each message. Neighbours hold the
//! inbox and not the actor's address, so no actor knows the type of another, and a test can stand in for any of them.
//!
//! All recipients of an inbox feed the one queue of the actor's mailbox. So messages from one actor to another arrive in the order in
//! which they were sent, whichever recipients they went through.
//!
//! A verb names a request, a past participle a fact. What an actor sends to itself stays in its own file, and `node::OpenSession`,
//! whose answer is an actor's address, stays with the node.

/// What a part is told is sent to its actor as it is.
macro_rules! messages {
    ($($word:ty),*) => {
        $(impl actix::Message for $word {
            type Result = ();
        })*
    };
}

/// The same where it speaks of the machine.
macro_rules! messages_of_machine {
    ($($word:ident),*) => {
        $(impl<S: crate::ledger::machine::StateMachine> actix::Message for $word<S> {
            type Result = ();
        })*
    };
}

pub mod bank;
pub mod client_session;
pub mod host_session;
pub mod log;
pub mod node;
pub mod peer_link;
pub mod proposer;
pub mod snapshotter;
pub mod voter;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use actix::prelude::*;

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Even(u32);

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Odd(u32);

    #[derive(Message)]
    #[rtype(result = "Vec<u32>")]
    struct Heard;

    #[derive(Default)]
    struct Listener(Vec<u32>);

    impl Actor for Listener {
        type Context = Context<Self>;
    }

    impl Handler<Even> for Listener {
        type Result = ();

        fn handle(&mut self, Even(number): Even, _: &mut Self::Context) {
            self.0.push(number);
        }
    }

    impl Handler<Odd> for Listener {
        type Result = ();

        fn handle(&mut self, Odd(number): Odd, _: &mut Self::Context) {
            self.0.push(number);
        }
    }

    impl Handler<Heard> for Listener {
        type Result = Vec<u32>;

        fn handle(&mut self, _: Heard, _: &mut Self::Context) -> Vec<u32> {
            std::mem::take(&mut self.0)
        }
    }

    /// Far more than actix's mailboxes hold before they make senders wait, and on another thread than the sender's.
    #[test]
    fn messages_keep_their_order_whichever_recipients_they_go_through() {
        const MANY: u32 = 10_000;
        System::new().block_on(async {
            let listener = Listener::start_in_arbiter(&Arbiter::new().handle(), |_| Listener::default());
            let (even, odd): (Recipient<Even>, Recipient<Odd>) =
                (listener.clone().recipient(), listener.clone().recipient());
            let heard: Recipient<Heard> = listener.recipient();
            for number in 0..MANY {
                if number % 2 == 0 {
                    even.do_send(Even(number));
                } else {
                    odd.do_send(Odd(number));
                }
            }
            let heard = actix_rt::time::timeout(Duration::from_secs(10), heard.send(Heard)).await.unwrap().unwrap();
            assert!(heard.into_iter().eq(0..MANY));
        });
    }
}
