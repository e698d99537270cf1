//! Any value of every type that travels.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use rabia_bank_messages::bank::*;
use rabia_bank_messages::batch::{Action, Payload, RequestHeader};
use rabia_bank_messages::client::{
    self, Answer, AnswerResult, ClientMessage, Feed, MAX_REQUEST, OpenSession, ServerMessage, SessionName, Welcome,
};
use rabia_bank_messages::ids::{
    BatchId, ClusterId, Digest, MAX_NODES, NodeId, Proof, RunId, Salt, SessionKey, StoreId, TokenId,
};
use rabia_bank_messages::lineage::{Memory, Run};
use rabia_bank_messages::peer::{
    self, Entry, Evidence, HelloRefused, Opening, PeerMessage, RefusalReason, SnapshotCursor, SnapshotPart, State, Vote,
};
use rabia_bank_messages::principal::{
    Admin, PrincipalInfo, PrincipalName, PutPrincipal, PutToken, Role, Scope, Scopes, SpendLimits, TokenInfo,
};
use rabia_bank_messages::stages::{Durations, Stage};
use rabia_bank_messages::token::Token;

fn account_id() -> impl Strategy<Value = AccountId> {
    prop_oneof!["[A-Za-z0-9_.:-]{1,50}", "\\PC{0,8}", any::<String>()].prop_map(Into::into)
}

fn amount() -> impl Strategy<Value = Amount> {
    prop_oneof![0..2_000_000u64, any::<u64>()].prop_map(Amount::new)
}

fn bound() -> impl Strategy<Value = Bound> {
    prop_oneof![Just(Bound::None), any::<i64>().prop_map(Bound::At), (-9..9i64).prop_map(Bound::At)]
}

fn text() -> impl Strategy<Value = Box<str>> {
    prop_oneof!["[A-Z]{1,12}", ".{0,9}"].prop_map(Box::from)
}

fn status_of_account() -> impl Strategy<Value = AccountStatus> {
    select(AccountStatus::ALL.to_vec())
}

/// Asset, bounds, status, code and name.
type Settings = (Option<AssetCode>, [Option<Bound>; 2], Option<AccountStatus>, [Option<Box<str>>; 2]);

fn settings() -> impl Strategy<Value = Settings> {
    let bounds = [option::of(bound()), option::of(bound())];
    (option::of(text()), bounds, option::of(status_of_account()), [option::of(text()), option::of(text())])
}

fn operation() -> impl Strategy<Value = Operation> {
    let kind = proptest::sample::select(&OperationKind::ALL[..]);
    let names = (account_id(), account_id());
    (kind, names, amount(), settings(), any::<[u64; 2]>()).prop_map(
        |(kind, names, amount, settings, [scale, limit])| operation_of(kind, names, amount, settings, scale, limit),
    )
}

fn operation_of(
    kind: OperationKind,
    (account_id, other): (AccountId, AccountId),
    amount: Amount,
    (asset, [min_balance, max_balance], status, [code, name]): Settings,
    scale: u64,
    limit: u64,
) -> Operation {
    match kind {
        OperationKind::CreateAccount => Operation::CreateAccount(Box::new(CreateAccount {
            account_id,
            initial_balance: amount,
            asset,
            min_balance,
            max_balance,
            code,
            name,
        })),
        OperationKind::SetAccount => {
            let change = SetAccount { account_id, min_balance, max_balance, status, code, name };
            Operation::SetAccount(Box::new(change))
        }
        OperationKind::CreateAsset => Operation::CreateAsset(CreateAsset { asset: account_id, scale, limit }),
        OperationKind::Deposit => Operation::Deposit { account_id, amount },
        OperationKind::Withdraw => Operation::Withdraw { account_id, amount },
        OperationKind::Transfer => Operation::Transfer { from_account: account_id, to_account: other, amount },
    }
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        3 => operation().prop_map(Command::One),
        1 => (vec(operation(), 0..20), any::<bool>())
            .prop_map(|(commands, atomic)| Command::Bulk(Bulk { commands, atomic })),
    ]
}

fn transaction_type() -> impl Strategy<Value = TransactionType> {
    select(TransactionType::ALL.to_vec())
}

fn query() -> impl Strategy<Value = Query> {
    let history = (
        option::of(account_id()),
        option::of(transaction_type()),
        option::of(any::<u64>()),
        option::of(any::<u64>()),
        option::of(any::<u64>()),
        option::of(any::<u32>()),
    );
    prop_oneof![
        account_id().prop_map(|account_id| Query::GetAccount { account_id }),
        account_id().prop_map(|account_id| Query::GetBalance { account_id }),
        (option::of(account_id()), option::of(any::<u32>()), option::of(text()))
            .prop_map(|(after, limit, code)| Query::ListAccounts { after, limit, code }),
        Just(Query::ListAssets {}),
        history.prop_map(|(account_id, transaction_type, from_time, to_time, before, limit)| {
            Query::GetTransactionHistory(HistoryFilter {
                account_id,
                transaction_type,
                from_time,
                to_time,
                before,
                limit,
            })
        }),
        any::<u64>().prop_map(|transaction_id| Query::GetTransaction { transaction_id }),
        (option::of(any::<u64>()), option::of(text()))
            .prop_map(|(large_amount, asset)| Query::GetStatistics { large_amount, asset }),
        Just(Query::GetStatus {}),
    ]
}

fn read_level() -> impl Strategy<Value = ReadLevel> {
    prop_oneof![Just(ReadLevel::Linearizable), Just(ReadLevel::Local), any::<u64>().prop_map(ReadLevel::AtLeast)]
}

fn session_name() -> impl Strategy<Value = SessionName> {
    any::<(u64, [u8; 16])>().prop_map(|(number, key)| SessionName { number, key: SessionKey(key) })
}

pub fn client_message() -> impl Strategy<Value = ClientMessage> {
    let open = any::<[u8; 16]>().prop_map(|key| OpenSession { key: SessionKey(key) });
    let sessions = prop_oneof![
        Just((None, None)),
        session_name().prop_map(|session| (Some(session), None)),
        open.prop_map(|open| (None, Some(open))),
    ];
    prop_oneof![
        1 => (any::<u32>(), option::of(".{0,70}"), sessions).prop_map(|(version, token, (session, open))| {
            let token = token.map(|token| Token::from(&*token));
            ClientMessage::Hello(client::Hello { version, token, session, open })
        }),
        4 => (1..=MAX_REQUEST, command(), any::<u64>()).prop_map(|(request, command, acknowledged)| {
            ClientMessage::Command { request, command, acknowledged }
        }),
        2 => (1..=MAX_REQUEST, admin(), any::<u64>()).prop_map(|(request, admin, acknowledged)| {
            ClientMessage::Admin { request, admin: Box::new(admin), acknowledged }
        }),
        4 => (1..=MAX_REQUEST, query(), read_level())
            .prop_map(|(request, query, read)| ClientMessage::Query { request, query, read }),
        1 => (1..=MAX_REQUEST, feed(), read_level())
            .prop_map(|(request, feed, read)| ClientMessage::Subscribe { request, feed, read }),
        1 => any::<u64>().prop_map(|subscription| ClientMessage::Unsubscribe { subscription }),
        1 => Just(ClientMessage::Goodbye),
    ]
}

fn principal_name() -> impl Strategy<Value = PrincipalName> {
    "[A-Za-z0-9_.:-]{1,50}".prop_map(|name| name.parse().unwrap())
}

fn scopes() -> impl Strategy<Value = Vec<Scope>> {
    proptest::collection::vec("\\*|[A-Za-z0-9_.:-]{1,50}", 0..4)
        .prop_map(|scopes| scopes.iter().map(|scope| scope.parse().unwrap()).collect())
}

fn principal() -> impl Strategy<Value = PrincipalInfo> {
    (any::<u32>(), put_principal()).prop_map(|(number, put)| PrincipalInfo { number, put })
}

fn token_info() -> impl Strategy<Value = TokenInfo> {
    (any::<[u8; 8]>(), any::<u64>(), principal_name(), any::<u64>()).prop_map(
        |(token_id, number, principal, expires_at)| TokenInfo {
            token_id: TokenId(token_id),
            number,
            principal,
            expires_at,
        },
    )
}

fn limit() -> impl Strategy<Value = Option<u64>> {
    option::of(0..=rabia_bank_messages::bank::MAX_BALANCE)
}

fn put_principal() -> impl Strategy<Value = PutPrincipal> {
    let roles = proptest::sample::subsequence(Role::ALL.to_vec(), 0..=Role::ALL.len());
    let rest = ([limit(), limit()], option::of(principal_name()));
    (principal_name(), roles, [scopes(), scopes(), scopes()], rest).prop_map(
        |(principal, roles, [read, debit, credit], ([per_transaction, per_day], namespace))| PutPrincipal {
            principal,
            roles: roles.into_iter().collect(),
            scopes: Scopes { read, debit, credit },
            limits: SpendLimits { per_transaction, per_day },
            namespace,
        },
    )
}

pub fn admin() -> impl Strategy<Value = Admin> {
    let id = || any::<[u8; 8]>().prop_map(TokenId);
    prop_oneof![
        put_principal().prop_map(Admin::PutPrincipal),
        principal_name().prop_map(|principal| Admin::RemovePrincipal { principal }),
        (principal_name(), id(), digest(), any::<u64>()).prop_map(|(principal, token_id, token_hash, expires_at)| {
            Admin::PutToken(PutToken { principal, token_id, token_hash, expires_at })
        }),
        id().prop_map(|token_id| Admin::RevokeToken { token_id }),
        any::<u32>().prop_map(|level| Admin::RaiseLevel { level }),
    ]
}

fn feed() -> impl Strategy<Value = Feed> {
    (option::of(account_id()), option::of(any::<u64>()), option::of(text()), option::of(any::<u64>()))
        .prop_map(|(account_id, min_amount, asset, from)| Feed { account_id, min_amount, asset, from })
}

fn account() -> impl Strategy<Value = Account> {
    let said = (text(), [bound(), bound()], status_of_account(), [option::of(text()), option::of(text())]);
    (account_id(), any::<(i64, Option<i64>)>(), any::<[u64; 3]>(), option::of(any::<u64>()), said).prop_map(
        |(account_id, (balance, available), [created_at, transaction_count, version], last_transaction_at, said)| {
            let (asset, [min_balance, max_balance], status, [code, name]) = said;
            Account {
                account_id,
                asset,
                balance,
                available,
                min_balance,
                max_balance,
                status,
                code,
                name,
                created_at,
                last_transaction_at,
                transaction_count,
                version,
                other: OtherFields::default(),
            }
        },
    )
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest)
}

fn transaction() -> impl Strategy<Value = Transaction> {
    let accounts = (option::of(account_id()), option::of(account_id()));
    let balances = any::<(Option<i64>, Option<i64>)>();
    let salt = || option::of(any::<[u8; 16]>().prop_map(Salt));
    let texts = [option::of(text()), option::of(text()), option::of(text())];
    let blind = (option::of(any::<u32>()), salt(), salt(), option::of(digest()), option::of(digest()), texts);
    (any::<[u64; 4]>(), transaction_type(), accounts, balances, digest(), blind).prop_map(
        |(
            numbers,
            transaction_type,
            (from_account, to_account),
            (from_balance, to_balance),
            hash,
            (principal, from_salt, to_salt, from_hash, to_hash, [asset, settings, act]),
        )| Transaction {
            transaction_id: numbers[0],
            transaction_type: transaction_type.into(),
            from_account,
            to_account,
            asset,
            // Where nothing moves there is none.
            amount: if transaction_type.has_amount() { numbers[1] } else { 0 },
            from_balance,
            to_balance,
            settings,
            timestamp: numbers[2],
            slot: numbers[3],
            principal,
            proofs: SideProofs { from_salt, to_salt, from_hash, to_hash }.boxed(),
            act,
            hash,
            other: OtherFields::default(),
        },
    )
}

fn volume() -> impl Strategy<Value = Volume> {
    any::<(u64, u64)>().prop_map(|(count, volume)| Volume { count, volume })
}

fn statistics() -> impl Strategy<Value = Statistics> {
    (
        (any::<([u64; 2], i64)>(), text(), proptest::collection::btree_map(text(), any::<i64>(), 0..3)),
        volume(),
        proptest::collection::btree_map(transaction_type().prop_map(TypeName::from), volume(), 0..4),
        vec((any::<u64>(), volume()).prop_map(|(hour, total)| HourVolume { hour, total }), 0..3),
        (vec(account(), 0..3), vec(account(), 0..3)),
        vec(transaction(), 0..3),
    )
        .prop_map(|(sums, transactions, by_type, by_hour, (largest, active), large_transactions)| Statistics {
            asset: sums.1,
            accounts: sums.0.0[0],
            total_balance: sums.0.1,
            totals: sums.2,
            transactions,
            by_type,
            by_hour,
            largest_accounts: largest,
            most_active_accounts: active,
            large_amount: sums.0.0[1],
            large_transactions,
            other: OtherFields::default(),
        })
}

pub fn node() -> impl Strategy<Value = NodeId> {
    select(NodeId::all(MAX_NODES).collect::<Vec<_>>())
}

fn status() -> impl Strategy<Value = Status> {
    (node(), any::<[u8; 16]>(), any::<String>(), vec(node(), 0..7), any::<[u64; 17]>(), digest(), digest()).prop_map(
        |(node, cluster, version, connected, n, chain_head, state_digest)| Status {
            node,
            cluster: ClusterId(cluster),
            version,
            members: connected.len(),
            level: connected.len() as u32,
            can: 1 + connected.len() as u32,
            members_can: connected.iter().map(|node| node.get().into()).collect(),
            connected,
            applied_slot: n[0],
            decided_slots: n[1],
            null_slots: n[2],
            repeated_batches: n[3],
            unusable_batches: n[3] / 2,
            phases: [n[4], n[5], n[6], n[7]],
            snapshot_slot: n[1] / 2,
            known_slot: n[1],
            receiving_bytes: n[1] / 3,
            open_slots: n[8],
            admitted: n[9] % 2 == 0,
            in_doubt: n[10] % 2 == 0,
            accounts: n[9],
            transactions: n[10],
            total_balance: n[11] as i64,
            sessions: n[12],
            clients: n[13],
            max_clients: n[13] / 2,
            descriptors: n[12] / 2,
            chain_head,
            state_digest,
            log_time: n[2],
            clock_offset_ms: n[3] as i64,
            clock_leap_ms: n[4],
            certificate_expires_at: n[5],
            commits: n[14],
            uptime_s: n[15],
            process: Process { cpu_ms: n[16], peak_memory_bytes: n[0], written_bytes: n[1] },
            stages: [(Stage::Queue, Durations::new(n.to_vec())), (Stage::Answer, Durations::default())].into(),
            other: OtherFields::default(),
        },
    )
}

fn refusal() -> impl Strategy<Value = Refusal> {
    let outcome = select(vec![Outcome::Refused, Outcome::Unknown]);
    (select(ErrorCode::ALL.to_vec()), any::<String>(), outcome, option::of(any::<u32>()))
        .prop_map(|(code, message, outcome, index)| Refusal { outcome, index, ..Refusal::refused(code, message) })
}

/// What a single command answers.
fn item() -> impl Strategy<Value = Success> {
    prop_oneof![
        (account(), option::of(transaction()))
            .prop_map(|(account, transaction)| Success::Account { account: Box::new(account), transaction }),
        transaction().prop_map(|transaction| Success::Transaction { transaction }),
    ]
}

fn asset() -> impl Strategy<Value = Asset> {
    (text(), any::<(u8, u64, u64, i64)>()).prop_map(|(asset, (scale, limit, accounts, total_balance))| Asset {
        asset,
        scale,
        limit,
        accounts,
        total_balance,
        other: OtherFields::default(),
    })
}

fn success() -> impl Strategy<Value = Success> {
    let results = vec(prop_oneof![item().prop_map(ItemResult::Ok), refusal().prop_map(ItemResult::Error)], 0..5);
    prop_oneof![
        3 => item(),
        1 => results.prop_map(|results| Success::Results { results }),
        1 => any::<i64>().prop_map(|balance| Success::Balance { balance }),
        1 => vec(asset(), 0..3).prop_map(|assets| Success::Assets { assets }),
        1 => (vec(account(), 0..4), option::of(account_id()))
            .prop_map(|(accounts, next)| Success::Accounts { accounts, next }),
        1 => (vec(transaction(), 0..4), option::of(any::<u64>()))
            .prop_map(|(transactions, next)| Success::Transactions { transactions, next }),
        1 => statistics().prop_map(|statistics| Success::Statistics { statistics: Box::new(statistics) }),
        1 => status().prop_map(|status| Success::Status { status: Box::new(status) }),
        1 => any::<u64>().prop_map(|from| Success::Subscribed { from }),
        1 => any::<u64>().prop_map(|number| Success::Administered { number }),
        1 => (vec(principal(), 0..3), vec(token_info(), 0..3))
            .prop_map(|(principals, tokens)| Success::Principals { principals, tokens }),
    ]
}

pub fn server_message() -> impl Strategy<Value = ServerMessage> {
    let welcome = (node(), any::<[u8; 16]>(), option::of(any::<u64>()), any::<u64>()).prop_map(
        |(node, cluster, session, applied_slot)| ServerMessage::Welcome {
            welcome: Welcome {
                node,
                cluster: ClusterId(cluster),
                session,
                opened: session.is_some_and(|n| n % 2 == 0),
                applied_slot,
                principal: None,
                level: 1,
                features: vec!["more".into()],
                nodes: vec![node],
            },
        },
    );
    let result = prop_oneof![success().prop_map(AnswerResult::Ok), refusal().prop_map(AnswerResult::Error)];
    let answer = (
        any::<u64>(),
        any::<(Option<u64>, Option<u32>)>(),
        option::of(session_name()),
        result,
        option::of(any::<bool>()),
    )
        .prop_map(|(request, (slot, index), session, result, replayed)| {
            ServerMessage::Answer(Box::new(Answer { request, slot, index, session, result, replayed }))
        });
    let transaction = (any::<u64>(), transaction()).prop_map(|(subscription, transaction)| {
        ServerMessage::Transaction { subscription, transaction: Box::new(transaction) }
    });
    let reached =
        any::<(u64, u64)>().prop_map(|(subscription, reached)| ServerMessage::Reached { subscription, reached });
    prop_oneof![
        1 => welcome,
        6 => answer,
        1 => transaction,
        1 => reached,
        1 => refusal().prop_map(|error| ServerMessage::Error { error })
    ]
}

pub fn request() -> impl Strategy<Value = (RequestHeader, Action)> {
    let header = any::<([u64; 4], [u8; 16])>().prop_map(|([session, number, acknowledged, token], key)| {
        RequestHeader { session, key: SessionKey(key), number, acknowledged, token }
    });
    let action = prop_oneof![1 => Just(Action::Open), 1 => Just(Action::Close), 6 => command().prop_map(Action::Command),
            2 => admin().prop_map(|admin| Action::Admin(Box::new(admin)))];
    (header, action)
}

fn batch_id() -> impl Strategy<Value = BatchId> {
    (node(), any::<(u64, u64)>(), digest()).prop_map(|(origin, (incarnation, sequence), digest)| BatchId {
        origin,
        incarnation,
        sequence,
        digest,
    })
}

fn payload() -> impl Strategy<Value = Payload> {
    vec(any::<u8>(), 0..300).prop_map(Payload::new)
}

pub fn peer_message() -> impl Strategy<Value = PeerMessage> {
    let value = || option::of(batch_id());
    let state = prop_oneof![Just(State::Zero), batch_id().prop_map(State::One), Just(State::Abstain)];
    let vote = prop_oneof![Just(Vote::Zero), batch_id().prop_map(Vote::One), Just(Vote::Undecided)];
    let entry = (any::<u64>(), option::of((batch_id(), payload()))).prop_map(|(slot, batch)| Entry { slot, batch });
    prop_oneof![
        (any::<u64>(), value(), option::of(payload())).prop_map(|(slot, value, payload)| PeerMessage::Proposal {
            slot,
            value,
            payload
        }),
        (any::<(u64, u32)>(), state).prop_map(|((slot, phase), state)| PeerMessage::State { slot, phase, state }),
        (any::<(u64, u32)>(), vote).prop_map(|((slot, phase), vote)| PeerMessage::Vote { slot, phase, vote }),
        (any::<u64>(), value()).prop_map(|(slot, value)| PeerMessage::Decide { slot, value }),
        (batch_id(), payload()).prop_map(|(id, payload)| PeerMessage::Batch { id, payload }),
        batch_id().prop_map(|id| PeerMessage::Fetch { id }),
        any::<(u64, u64)>().prop_map(|(starts, round)| PeerMessage::ReadIndex { starts, round }),
        any::<(u64, u64, u64)>().prop_map(|(starts, round, slot)| PeerMessage::ReadIndexAnswer { starts, round, slot }),
        any::<u64>().prop_map(|from| PeerMessage::CatchUp { from }),
        (digest(), vec(entry, 0..5), any::<u64>()).prop_map(|(before, entries, decided)| PeerMessage::Entries {
            before,
            entries,
            decided
        }),
        any::<u64>().prop_map(|log_from| PeerMessage::Compacted { log_from }),
        (any::<u64>(), cursor()).prop_map(|(slot, at)| PeerMessage::GetSnapshot { slot, at }),
        (any::<u64>(), cursor(), part(), vec((any::<u64>(), vec(any::<u8>(), 0..9)), 0..4), option::of(cursor()))
            .prop_map(|(slot, at, part, rows, next)| PeerMessage::SnapshotRows {
                slot,
                at,
                part,
                rows: rows.into_iter().map(|(row, body)| (row, body.into())).collect(),
                next,
            }),
        (any::<u64>(), proof()).prop_map(|(count, proof)| PeerMessage::Promised { count, proof }),
        (any::<u64>(), any::<Option<u64>>(), any::<bool>()).prop_map(|(wall, confirmed, refuses)| PeerMessage::Clock {
            wall,
            confirmed,
            refuses
        }),
        (any::<(u64, u64)>(), digest()).prop_map(|((decided, durable), hash)| PeerMessage::Alive {
            decided,
            hash,
            durable
        }),
        any::<u64>().prop_map(|slot| PeerMessage::GetHash { slot }),
        (any::<u64>(), digest()).prop_map(|(slot, hash)| PeerMessage::LogHash { slot, hash }),
        (any::<u64>(), digest()).prop_map(|(slot, digest)| PeerMessage::StateDigest { slot, digest }),
    ]
}

fn part() -> impl Strategy<Value = SnapshotPart> {
    select(vec![SnapshotPart::Blocks, SnapshotPart::State, SnapshotPart::Accounts, SnapshotPart::Sessions])
}

fn cursor() -> impl Strategy<Value = SnapshotCursor> {
    (part(), any::<(u64, u64)>()).prop_map(|(part, (row, offset))| SnapshotCursor { part, row, offset })
}

pub fn opening() -> impl Strategy<Value = Opening> {
    let reason = select(vec![
        RefusalReason::Version,
        RefusalReason::Cluster,
        RefusalReason::Key,
        RefusalReason::Genesis,
        RefusalReason::Node,
        RefusalReason::NotYet,
        RefusalReason::Replaced,
        RefusalReason::OldCopy,
        RefusalReason::Number,
        RefusalReason::NoHello,
    ]);
    let runs = (run(), vec(run(), 0..5), proof(), option::of(memory()), option::of(memory()));
    let log = (any::<(u64, Option<u64>)>(), digest());
    let hello = (any::<[[u8; 16]; 2]>(), digest(), node(), node(), runs, log).prop_map(
        |(
            [cluster, store],
            genesis,
            node,
            to,
            (run, former, proof, remembers, disputes),
            ((decided, joined), hash),
        )| {
            Opening::Hello(peer::Hello {
                cluster: ClusterId(cluster),
                genesis,
                node,
                to,
                store: StoreId(store),
                joined,
                run,
                proof,
                former,
                remembers,
                disputes,
                decided,
                log_hash: hash,
            })
        },
    );
    let evidence = prop_oneof![memory().prop_map(Evidence::OldCopy), any::<u64>().prop_map(Evidence::Replaced)];
    let refused = (reason, any::<String>(), option::of(evidence))
        .prop_map(|(reason, message, evidence)| Opening::Refused(HelloRefused { reason, message, evidence }));
    prop_oneof![hello, refused]
}

fn proof() -> impl Strategy<Value = Proof> {
    any::<[u8; 16]>().prop_map(Proof)
}

fn run() -> impl Strategy<Value = Run> {
    any::<([u8; 16], u64)>().prop_map(|(run, promises)| Run { run: RunId(run), promises })
}

fn memory() -> impl Strategy<Value = Memory> {
    (any::<[u8; 16]>(), run(), proof()).prop_map(|(store, Run { run, promises }, proof)| Memory {
        store: StoreId(store),
        run,
        promises,
        proof,
    })
}
