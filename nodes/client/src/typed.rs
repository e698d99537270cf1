//! Typed calls: what a command or a query brings, as the type that it is, and pages as streams.

use std::pin::Pin;

use futures_util::stream::{self, Stream, TryStreamExt};
use rabia_bank_messages::bank::{
    Account, AccountId, Amount, Asset, AssetCode, Bulk, Command, CreateAccount, CreateAsset, ErrorCode, HistoryFilter,
    ItemResult, MAX_PAGE, Operation, Outcome, Query, ReadLevel, Refusal, SetAccount, Statistics, Status, Success,
    Transaction,
};
use rabia_bank_messages::ids::Slot;
use rabia_bank_messages::principal::Admin;

use super::{Applied, CallError, Client, Request, Unknown};

/// What a call brought.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Receipt<T> {
    /// The slot that it was applied in or read at. A read [`at least`](ReadLevel::AtLeast) at this slot, on any node, sees it.
    pub slot: Slot,
    /// Of a command: its place in that slot, from 0.
    pub index: Option<u32>,
    /// Whether a command had been applied by an earlier attempt.
    pub replayed: bool,
    /// What came of it.
    pub value: T,
}

impl<T> Receipt<T> {
    fn of(applied: Applied, pick: impl FnOnce(Success) -> Option<T>) -> Result<Receipt<T>, Refusal> {
        let Applied { slot, index, replayed, success } = applied;
        let unknown = |why: &str| Refusal::unknown(ErrorCode::Malformed, why);
        let Some(slot) = slot else { return Err(unknown("an answer that names no slot")) };
        match pick(success) {
            Some(value) => Ok(Receipt { slot, index, replayed, value }),
            None => Err(unknown("an answer to another question")),
        }
    }
}

/// Typed calls to a bank. A [`Client`] makes them over a connection, and the session of a program that has a node inside makes
/// them without one. What is written against this trait runs with either.
pub trait BankCalls: Sync {
    /// Why a call brought no success.
    type Error: From<Refusal> + Send;

    /// Carries a command out, once, or answers a query.
    ///
    /// # Errors
    /// Why it brought no success.
    fn call(&self, request: Request) -> impl Future<Output = Result<Applied, Self::Error>> + Send;

    /// Opens an account. Its opening balance, in minor units, may be 0.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    fn create_account(
        &self,
        account_id: impl Into<AccountId>,
        initial_balance: u64,
    ) -> impl Future<Output = Result<Receipt<Account>, Self::Error>> + Send {
        self.open_account(CreateAccount::new(account_id, Amount::new(initial_balance)))
    }

    /// Opens an account of any asset, with bounds, a class or a name.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    fn open_account(
        &self,
        account: CreateAccount,
    ) -> impl Future<Output = Result<Receipt<Account>, Self::Error>> + Send {
        ask(self, operation(Operation::CreateAccount(Box::new(account))), |success| match success {
            Success::Account { account, .. } => Some(*account),
            _ => None,
        })
    }

    /// Changes what an account lets happen, or what is said of it.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    fn set_account(
        &self,
        change: SetAccount,
    ) -> impl Future<Output = Result<Receipt<Transaction>, Self::Error>> + Send {
        ask(self, operation(Operation::SetAccount(Box::new(change))), transaction)
    }

    /// Brings an asset into being.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    fn create_asset(
        &self,
        asset: CreateAsset,
    ) -> impl Future<Output = Result<Receipt<Transaction>, Self::Error>> + Send {
        ask(self, operation(Operation::CreateAsset(asset)), transaction)
    }

    /// Brings money in.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    fn deposit(
        &self,
        account_id: impl Into<AccountId>,
        amount: u64,
    ) -> impl Future<Output = Result<Receipt<Transaction>, Self::Error>> + Send {
        let (account_id, amount) = (account_id.into(), Amount::new(amount));
        ask(self, operation(Operation::Deposit { account_id, amount }), transaction)
    }

    /// Takes money out.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    fn withdraw(
        &self,
        account_id: impl Into<AccountId>,
        amount: u64,
    ) -> impl Future<Output = Result<Receipt<Transaction>, Self::Error>> + Send {
        let (account_id, amount) = (account_id.into(), Amount::new(amount));
        ask(self, operation(Operation::Withdraw { account_id, amount }), transaction)
    }

    /// Moves money.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    fn transfer(
        &self,
        from_account: impl Into<AccountId>,
        to_account: impl Into<AccountId>,
        amount: u64,
    ) -> impl Future<Output = Result<Receipt<Transaction>, Self::Error>> + Send {
        let (from_account, to_account, amount) = (from_account.into(), to_account.into(), Amount::new(amount));
        ask(self, operation(Operation::Transfer { from_account, to_account, amount }), transaction)
    }

    /// Applies several operations in one step. `atomic`: all or none; else each has its own result.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    fn bulk(
        &self,
        commands: Vec<Operation>,
        atomic: bool,
    ) -> impl Future<Output = Result<Receipt<Vec<ItemResult>>, Self::Error>> + Send {
        ask(self, Request::Command(Command::Bulk(Bulk { commands, atomic })), |success| match success {
            Success::Results { results } => Some(results),
            _ => None,
        })
    }

    /// Raises the level of the cluster, from the next slot on: for administrators, once every member's program knows it. Brings the level.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    fn raise_level(&self, level: u32) -> impl Future<Output = Result<Receipt<u32>, Self::Error>> + Send {
        ask(self, Request::Admin(Admin::RaiseLevel { level }), |success| match success {
            Success::Administered { number } => u32::try_from(number).ok(),
            _ => None,
        })
    }

    /// Looks an account up.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    fn account(
        &self,
        account_id: impl Into<AccountId>,
        read: ReadLevel,
    ) -> impl Future<Output = Result<Receipt<Account>, Self::Error>> + Send {
        let query = Query::GetAccount { account_id: account_id.into() };
        ask(self, Request::Query(query, read), |success| match success {
            Success::Account { account, .. } => Some(*account),
            _ => None,
        })
    }

    /// Looks a balance up, in minor units. Below 0 the account is overdrawn.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    fn balance(
        &self,
        account_id: impl Into<AccountId>,
        read: ReadLevel,
    ) -> impl Future<Output = Result<Receipt<i64>, Self::Error>> + Send {
        let query = Query::GetBalance { account_id: account_id.into() };
        ask(self, Request::Query(query, read), |success| match success {
            Success::Balance { balance } => Some(balance),
            _ => None,
        })
    }

    /// Looks a transaction up.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    fn transaction(
        &self,
        transaction_id: u64,
        read: ReadLevel,
    ) -> impl Future<Output = Result<Receipt<Transaction>, Self::Error>> + Send {
        ask(self, Request::Query(Query::GetTransaction { transaction_id }, read), transaction)
    }

    /// All assets, the cluster's own one first.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    fn assets(&self, read: ReadLevel) -> impl Future<Output = Result<Receipt<Vec<Asset>>, Self::Error>> + Send {
        ask(self, Request::Query(Query::ListAssets {}, read), |success| match success {
            Success::Assets { assets } => Some(assets),
            _ => None,
        })
    }

    /// Figures over all accounts and transactions of an asset, or of the cluster's own one; transactions of at least `large_amount` are
    /// listed.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    fn statistics(
        &self,
        asset: Option<AssetCode>,
        large_amount: Option<u64>,
        read: ReadLevel,
    ) -> impl Future<Output = Result<Receipt<Statistics>, Self::Error>> + Send {
        ask(self, Request::Query(Query::GetStatistics { large_amount, asset }, read), |success| match success {
            Success::Statistics { statistics } => Some(*statistics),
            _ => None,
        })
    }

    /// The state of the node that answers.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    fn status(&self) -> impl Future<Output = Result<Receipt<Status>, Self::Error>> + Send {
        ask(self, Request::Query(Query::GetStatus {}, ReadLevel::Local), |success| match success {
            Success::Status { status } => Some(*status),
            _ => None,
        })
    }

    /// All accounts by id, in byte order, from the one after `after` on; of a class, if one is given. They are read page by page, as the
    /// stream is: an account that is opened meanwhile may or may not be among them. The stream ends after an error.
    fn accounts(
        &self,
        after: Option<AccountId>,
        code: Option<Box<str>>,
        read: ReadLevel,
    ) -> impl Stream<Item = Result<Account, Self::Error>> + Unpin + Send {
        pages(after, move |after| {
            let query = Query::ListAccounts { after, limit: Some(MAX_PAGE), code: code.clone() };
            let page = ask(self, Request::Query(query, read), |success| match success {
                Success::Accounts { accounts, next } => Some((accounts, next)),
                _ => None,
            });
            Box::pin(async { Ok(page.await?.value) })
        })
    }

    /// The transactions that meet every condition of the filter, newest first, however many there are. The filter's `limit` is
    /// the size of the pages that are read. The stream ends after an error.
    fn history(
        &self,
        filter: HistoryFilter,
        read: ReadLevel,
    ) -> impl Stream<Item = Result<Transaction, Self::Error>> + Unpin + Send {
        let limit = filter.limit.or(Some(MAX_PAGE));
        pages(filter.before, move |before| {
            let query = Query::GetTransactionHistory(HistoryFilter { before, limit, ..filter.clone() });
            let page = ask(self, Request::Query(query, read), |success| match success {
                Success::Transactions { transactions, next } => Some((transactions, next)),
                _ => None,
            });
            Box::pin(async { Ok(page.await?.value) })
        })
    }
}

impl BankCalls for Client {
    type Error = CallError;

    async fn call(&self, request: Request) -> Result<Applied, CallError> {
        self.ask(request).await?.into_applied()
    }
}

impl From<Refusal> for CallError {
    fn from(refusal: Refusal) -> CallError {
        match refusal.outcome {
            Outcome::Refused => CallError::Refused(refusal),
            Outcome::Unknown => CallError::Unknown(Unknown { why: refusal.to_string(), last: None }),
        }
    }
}

fn operation(operation: Operation) -> Request {
    Request::Command(Command::One(operation))
}

async fn ask<B: BankCalls + ?Sized, T>(
    bank: &B,
    request: Request,
    pick: fn(Success) -> Option<T>,
) -> Result<Receipt<T>, B::Error> {
    Ok(Receipt::of(bank.call(request).await?, pick)?)
}

type Page<'a, T, At, E> = Pin<Box<dyn Future<Output = Result<(Vec<T>, Option<At>), E>> + Send + 'a>>;

/// The items of all pages, each page beginning where the one before says.
fn pages<'a, T: Send + 'a, At: Send + 'a, E: Send + 'a>(
    first: Option<At>,
    page: impl Fn(Option<At>) -> Page<'a, T, At, E> + Send + 'a,
) -> impl Stream<Item = Result<T, E>> + Unpin + Send + 'a {
    // None: there are no more pages.
    let pages = stream::try_unfold((Some(first), page), |(at, page)| async move {
        let Some(at) = at else { return Ok::<_, E>(None) };
        let next_page = page(at);
        let (items, next) = next_page.await?;
        let items = stream::iter(items.into_iter().map(Ok));
        Ok(Some((items, (next.map(Some), page))))
    });
    Box::pin(pages.try_flatten())
}

fn transaction(success: Success) -> Option<Transaction> {
    match success {
        Success::Transaction { transaction } => Some(transaction),
        _ => None,
    }
}
