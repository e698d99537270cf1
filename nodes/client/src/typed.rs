//! Typed calls: what a command or a query brings, as the type that it is, and pages as streams.

use futures_util::stream::{self, Stream, TryStreamExt};
use rabia_bank_messages::bank::{
    Account, AccountId, Amount, Bulk, Command, HistoryFilter, ItemResult, MAX_PAGE, Operation, Query, ReadLevel,
    Statistics, Status, Success, Transaction,
};
use rabia_bank_messages::ids::Slot;

use super::{Applied, CallError, Client, Unknown};

/// What a call brought.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Receipt<T> {
    /// The slot that it was applied in or read at. A read [`at least`](ReadLevel::AtLeast) at this slot, on any node, sees it.
    pub slot: Slot,
    /// Of a command: its place in that slot, from 0. Commands are ordered by slot and index.
    pub index: Option<u32>,
    /// Whether a command had been applied by an earlier attempt.
    pub replayed: bool,
    /// What came of it.
    pub value: T,
}

impl<T> Receipt<T> {
    fn of(applied: Applied, pick: impl FnOnce(Success) -> Option<T>) -> Result<Receipt<T>, CallError> {
        let Applied { slot, index, replayed, success } = applied;
        let unknown = |why: String| CallError::Unknown(Unknown { why, last: None });
        let Some(slot) = slot else { return Err(unknown("an answer that names no slot".into())) };
        match pick(success) {
            Some(value) => Ok(Receipt { slot, index, replayed, value }),
            None => Err(unknown("an answer to another question".into())),
        }
    }
}

/// Every call fails as the [module](super) says.
impl Client {
    /// Opens an account.
    ///
    /// # Errors
    /// See the [module](super).
    pub async fn create_account(
        &self,
        account_id: impl Into<AccountId>,
        initial_balance: u64,
    ) -> Result<Receipt<Account>, CallError> {
        let (account_id, initial_balance) = (account_id.into(), Amount::new(initial_balance));
        let applied = self.command(Command::One(Operation::CreateAccount { account_id, initial_balance })).await?;
        Receipt::of(applied, |success| match success {
            Success::Account { account, .. } => Some(account),
            _ => None,
        })
    }

    /// Brings money in.
    ///
    /// # Errors
    /// See the [module](super).
    pub async fn deposit(
        &self,
        account_id: impl Into<AccountId>,
        amount: u64,
    ) -> Result<Receipt<Transaction>, CallError> {
        self.move_money(Operation::Deposit { account_id: account_id.into(), amount: Amount::new(amount) }).await
    }

    /// Takes money out.
    ///
    /// # Errors
    /// See the [module](super).
    pub async fn withdraw(
        &self,
        account_id: impl Into<AccountId>,
        amount: u64,
    ) -> Result<Receipt<Transaction>, CallError> {
        self.move_money(Operation::Withdraw { account_id: account_id.into(), amount: Amount::new(amount) }).await
    }

    /// Moves money.
    ///
    /// # Errors
    /// See the [module](super).
    pub async fn transfer(
        &self,
        from_account: impl Into<AccountId>,
        to_account: impl Into<AccountId>,
        amount: u64,
    ) -> Result<Receipt<Transaction>, CallError> {
        let (from_account, to_account) = (from_account.into(), to_account.into());
        self.move_money(Operation::Transfer { from_account, to_account, amount: Amount::new(amount) }).await
    }

    async fn move_money(&self, operation: Operation) -> Result<Receipt<Transaction>, CallError> {
        Receipt::of(self.command(Command::One(operation)).await?, transaction)
    }

    /// Applies several operations in one step. `atomic`: all or none; else each has its own result.
    ///
    /// # Errors
    /// See the [module](super).
    pub async fn bulk(&self, commands: Vec<Operation>, atomic: bool) -> Result<Receipt<Vec<ItemResult>>, CallError> {
        let applied = self.command(Command::Bulk(Bulk { commands, atomic })).await?;
        Receipt::of(applied, |success| match success {
            Success::Results { results } => Some(results),
            _ => None,
        })
    }

    /// Looks an account up.
    ///
    /// # Errors
    /// See the [module](super).
    pub async fn account(
        &self,
        account_id: impl Into<AccountId>,
        read: ReadLevel,
    ) -> Result<Receipt<Account>, CallError> {
        let applied = self.query(Query::GetAccount { account_id: account_id.into() }, read).await?;
        Receipt::of(applied, |success| match success {
            Success::Account { account, .. } => Some(account),
            _ => None,
        })
    }

    /// Looks a balance up, in minor units.
    ///
    /// # Errors
    /// See the [module](super).
    pub async fn balance(&self, account_id: impl Into<AccountId>, read: ReadLevel) -> Result<Receipt<u64>, CallError> {
        let applied = self.query(Query::GetBalance { account_id: account_id.into() }, read).await?;
        Receipt::of(applied, |success| match success {
            Success::Balance { balance } => Some(balance),
            _ => None,
        })
    }

    /// Looks a transaction up.
    ///
    /// # Errors
    /// See the [module](super).
    pub async fn transaction(&self, id: u64, read: ReadLevel) -> Result<Receipt<Transaction>, CallError> {
        Receipt::of(self.query(Query::GetTransaction { transaction_id: id }, read).await?, transaction)
    }

    /// Figures over the whole bank; transactions of at least `large_amount` are listed.
    ///
    /// # Errors
    /// See the [module](super).
    pub async fn statistics(
        &self,
        large_amount: Option<u64>,
        read: ReadLevel,
    ) -> Result<Receipt<Statistics>, CallError> {
        let applied = self.query(Query::GetStatistics { large_amount }, read).await?;
        Receipt::of(applied, |success| match success {
            Success::Statistics { statistics } => Some(*statistics),
            _ => None,
        })
    }

    /// The state of the node that this client is connected to.
    ///
    /// # Errors
    /// See the [module](super).
    pub async fn status(&self) -> Result<Receipt<Status>, CallError> {
        let applied = self.query(Query::GetStatus {}, ReadLevel::Local).await?;
        Receipt::of(applied, |success| match success {
            Success::Status { status } => Some(*status),
            _ => None,
        })
    }

    /// All accounts by id, in byte order, from the one after `after` on. They are read page by page, as the stream is: an
    /// account that is opened meanwhile may or may not be among them. The stream ends after an error.
    pub fn accounts(
        &self,
        after: Option<AccountId>,
        read: ReadLevel,
    ) -> impl Stream<Item = Result<Account, CallError>> + Unpin + '_ {
        let page = move |after: Option<AccountId>| async move {
            let query = Query::ListAccounts { after, limit: Some(MAX_PAGE) };
            let page = Receipt::of(self.query(query, read).await?, |success| match success {
                Success::Accounts { accounts, next } => Some((accounts, next)),
                _ => None,
            })?;
            Ok(page.value)
        };
        pages(after, move |after| Box::pin(page(after)))
    }

    /// The transactions that meet every condition of the filter, newest first, however many there are. The filter's `limit` is
    /// the size of the pages that are read. The stream ends after an error.
    pub fn history(
        &self,
        filter: HistoryFilter,
        read: ReadLevel,
    ) -> impl Stream<Item = Result<Transaction, CallError>> + Unpin + '_ {
        let page = move |filter: HistoryFilter| async move {
            let page =
                Receipt::of(self.query(Query::GetTransactionHistory(filter), read).await?, |success| match success {
                    Success::Transactions { transactions, next } => Some((transactions, next)),
                    _ => None,
                })?;
            Ok(page.value)
        };
        let limit = filter.limit.or(Some(MAX_PAGE));
        let first = filter.before;
        pages(first, move |before| Box::pin(page(HistoryFilter { before, limit, ..filter.clone() })))
    }
}

/// The items of all pages, each page beginning where the one before says.
fn pages<'a, T: 'a, At: 'a>(
    first: Option<At>,
    page: impl Fn(Option<At>) -> std::pin::Pin<Box<dyn Future<Output = Result<(Vec<T>, Option<At>), CallError>> + 'a>> + 'a,
) -> impl Stream<Item = Result<T, CallError>> + Unpin + 'a {
    // None: there are no more pages.
    let pages = stream::try_unfold((Some(first), page), |(at, page)| async move {
        let Some(at) = at else { return Ok::<_, CallError>(None) };
        let (items, next) = page(at).await?;
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
