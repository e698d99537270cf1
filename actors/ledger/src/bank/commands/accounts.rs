//! Accounts and assets come into being, and what is set about accounts changes.

use rabia_bank_messages::bank::{AccountStatus, CreateAccount, CreateAsset, SetAccount};

use super::super::acts;
use super::super::assets::AssetIndex;
use super::super::history::Movement;
use super::super::outcomes::{Done, OperationOutcome, OperationRefusal, shortened};
use super::super::settings::{Said, USUAL};
use super::money::check_move;
use super::{At, Bank, refuse};

impl Bank {
    pub(super) fn create_account(&mut self, new: &CreateAccount, at: At<'_>) -> OperationOutcome {
        let said = Said::from(new);
        let text = said.text();
        let settings = said.on(&USUAL);
        if !settings.are_possible() {
            return refuse(OperationRefusal::InvalidBounds);
        }
        let asset = match &new.asset {
            None => Some(AssetIndex::OWN),
            Some(code) => self.accounts.assets.find(code),
        };
        let amount = self.check_amount(new.initial_balance, 0, asset.unwrap_or_default())?;
        if self.accounts.find(&new.account_id).is_some() {
            return refuse(OperationRefusal::AccountExists((*new.account_id).into()));
        }
        let Some(asset) = asset else {
            return refuse(OperationRefusal::AssetNotFound(shortened(new.asset.as_deref().unwrap_or(""))));
        };
        check_move(amount, at)?;
        if !settings.lets_rise_to(amount as i64) {
            return refuse(OperationRefusal::BalanceLimit((*new.account_id).into()));
        }
        self.check_total(asset, amount as i64)?;
        let account = self.accounts.create(&new.account_id, asset, settings, at.moment.time);
        let movement = Movement::Opening(self.set_balance(account, amount as i64, at.moment));
        Ok(Done::Opened(match text {
            None => self.history.append(movement, amount, at.moment, &self.accounts),
            Some(text) => self.history.append_with(movement, amount, text.into(), at.moment, &self.accounts),
        }))
    }

    pub(super) fn set_account(&mut self, change: &SetAccount, at: At<'_>) -> OperationOutcome {
        let account = self.check_account(&change.account_id)?;
        let state = self.accounts.get(account);
        let before = state.settings();
        if before.status == AccountStatus::Closed {
            return refuse(OperationRefusal::AccountClosed(state.name.clone()));
        }
        let said = Said::from(change);
        let text = said.text().unwrap_or_else(|| "{}".into());
        let settings = said.on(before);
        if !settings.are_possible() {
            return refuse(OperationRefusal::InvalidBounds);
        }
        if settings.status == AccountStatus::Closed && state.balance != 0 {
            return refuse(OperationRefusal::AccountNotEmpty(state.name.clone()));
        }
        let (before, balance) = (before.clone(), state.balance);
        let side = self.set_balance(account, balance, at.moment);
        if let Some(undo) = self.undo.last_mut() {
            undo.settings = Some(Box::new(before));
        }
        self.accounts.get_mut(account).set(settings);
        let movement = Movement::AccountChange(side);
        Ok(Done::Moved(self.history.append_with(movement, 0, text.into(), at.moment, &self.accounts)))
    }

    pub(super) fn create_asset(&mut self, asset: &CreateAsset, at: At<'_>) -> OperationOutcome {
        if self.accounts.assets.find(&asset.asset).is_some() {
            return refuse(OperationRefusal::AssetExists(shortened(&asset.asset)));
        }
        if !self.accounts.assets.has_room() {
            return refuse(OperationRefusal::TooManyAssets);
        }
        self.accounts.assets.create(asset);
        let text = acts::asset_text(asset);
        Ok(Done::Moved(self.history.append_with(Movement::Asset, 0, text.into(), at.moment, &self.accounts)))
    }
}
