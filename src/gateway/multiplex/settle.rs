//! What a client has left behind on its connection: asked of the server between two transactions, after the client has had
//! its answer.

use std::future::poll_fn;
use std::task::Poll;

use tracing::debug;

use super::Sharer;
use crate::pin::{Question, Reason, Told};
use crate::session::exchange::{Exchange, Sides};
use crate::session::settings::{Settings, changed, settings};
use crate::session::statements::ClientStatements;
use crate::sql::Effects;
use crate::upstream::connection::{Broken, SettingsError};
use crate::upstream::pool::Lease;

impl Sharer<'_> {
    /// Finds out what the client has left behind, unless it is known to have left nothing.
    #[inline]
    pub(super) async fn settled(
        &mut self,
        lease: &mut Lease,
        exchange: &mut Exchange,
    ) -> Result<(), SettingsError> {
        if self.session.run.effects.is_empty() && !self.pool.texts().are_outdated(&lease.session.ran) {
            lease.session.ran.clear();
            self.session.leaves_nothing();
            return Ok(());
        }
        Box::pin(self.settle_and_tell(lease, exchange)).await
    }

    /// The same as [`Self::settle`]; what the client has to hear of that, and notifications that come meanwhile, are passed on.
    async fn settle_and_tell(
        &mut self,
        lease: &mut Lease,
        exchange: &mut Exchange,
    ) -> Result<(), SettingsError> {
        self.settle(lease).await?;
        let mut news = lease.take_notifications();
        if self.stays() {
            // Nobody will hand the connection over to it.
            let mut sides = Sides {
                client: &mut self.session,
                server: &mut lease.session,
                texts: self.pool.texts(),
            };
            exchange.begin(&mut sides, &mut news);
        }
        if !news.is_empty() {
            self.traffic.sent += news.len() as u64;
            // A client that is gone shows at the next read.
            let _ = poll_fn(|cx| Poll::Ready(self.stream.poll_send(cx, &news))).await;
        }
        Ok(())
    }

    /// Finds out what the client has left behind, as far as what it has run may have left anything.
    async fn settle(&mut self, lease: &mut Lease) -> Result<(), SettingsError> {
        let before = self.session.pins;
        if self.session.run.discarded {
            let later = lease.session.ran.split_discarded();
            if self.pool.texts().are_outdated(&lease.session.ran) {
                // DISCARD ALL doesn't end all that there may be.
                self.judge_again(lease).await?;
            }
            self.session.discarded();
            lease.session.ran = later;
        }
        let is_outdated = self.pool.texts().are_outdated(&lease.session.ran);
        // Who is tied anyway needs it only when nothing ties it any more.
        if is_outdated && (self.session.pins.is_empty() || !lease.session.ran.has_room()) {
            self.judge_again(lease).await?;
        }
        self.ask(lease).await?;
        if self.session.pins.is_empty() && self.pool.texts().are_outdated(&lease.session.ran) {
            self.judge_again(lease).await?;
            self.ask(lease).await?;
        }
        let metrics = self.pool.metrics();
        let pins = self.session.pins;
        if pins != before {
            let reasons: Vec<_> = pins.reasons().map(Reason::label).collect();
            if let Some(presence) = self.client.presence() {
                presence.pins.set(pins);
            }
            debug!(session = %self.client.session, ?reasons, "what ties a client to its server connection is now this");
        }
        for reason in pins.reasons().filter(|reason| !before.contains(*reason)) {
            metrics.pins(reason);
        }
        if self.stays() {
            // It stays, so nobody will hand the connection over to it.
            let (id, wanted) = (self.session.id, self.session.settings.clone());
            lease.apply(id, &wanted, false).await?;
        }
        Ok(())
    }

    /// Judges what the client has run by the catalogs as they are now.
    pub(super) async fn judge_again(&mut self, lease: &mut Lease) -> Result<(), Broken> {
        let changes = self.session.run.effects.intersects(Effects::DDL);
        match self.pool.know_catalogs(lease).await {
            Ok(()) => {
                let texts = self.pool.texts();
                if texts.judge_again(&mut self.session.run, self.session.id, &lease.session) {
                    lease.session.distrust(self.session.id);
                }
                if !changes && self.session.run.effects.intersects(Effects::DDL) {
                    texts.changed();
                }
            }
            Err(Broken::NotTold { message, .. }) => {
                debug!(session = %self.client.session, message, "the catalogs could not be read");
                self.session.run.is_unknown();
            }
            Err(error) => return Err(error),
        }
        lease.session.ran.clear();
        lease.session.noted(self.session.id, self.session.run.traces());
        Ok(())
    }

    /// Asks the server what the session has, as far as that may have changed, and takes it over.
    async fn ask(&mut self, lease: &mut Lease) -> Result<(), Broken> {
        let run = &self.session.run;
        let ties = !self.session.pins.is_empty();
        let asks_all = run.unnamed
            || run
                .effects
                .intersects(Effects::PROBE | Effects::DYNAMIC_SETTING | Effects::DOUBT)
            || (run.effects.intersects(Effects::RESET) && !self.session.startup.is_empty())
            || (ties && run.effects.intersects(Effects::ENDS | Effects::DISCARD));
        let mut pins = self.session.pins;
        let mut custom = Vec::new();
        let question = if asks_all {
            let present = lease.session.settings.iter().map(|(name, _)| name);
            let known = run.named.iter().chain(present);
            custom.extend(known.filter(|name| name.contains('.')).cloned());
            custom.extend(self.pool.texts().custom().iter().cloned());
            Some(Question::Everything {
                custom: &custom,
                user: self.pool.key().user.as_str(),
            })
        } else {
            (!run.named.is_empty()).then_some(Question::Settings(&run.named))
        };
        if let Some(question) = question {
            self.pool.metrics().probes.inc();
            match lease.tell(&question).await {
                Ok(told) if asks_all => {
                    pins.seen(told.found);
                    if told.prepared == Some(0) && !lease.session.prepared.is_empty() {
                        // Code that no text shows has run DEALLOCATE ALL.
                        self.session.statements = ClientStatements::default();
                    }
                    let settings = all_settled(lease, &self.session.startup, told);
                    self.session.wants(settings);
                }
                Ok(told) => {
                    let settings = changed(&self.session.settings, told.settings);
                    lease.session.settled(settings.clone());
                    self.session.wants(settings);
                }
                Err(Broken::NotTold { message, .. }) => {
                    debug!(session = %self.client.session, message, "the server did not tell");
                    pins.add(Reason::Unknown);
                }
                Err(error) => return Err(error),
            }
        }
        self.session.settle(pins);
        if !self.pool.texts().are_outdated(&lease.session.ran) {
            lease.session.ran.clear();
        }
        Ok(())
    }
}

/// Notes the settings that the server has `told` of, all that there are; those that the client wants, which began with `startup`.
fn all_settled(lease: &mut Lease, startup: &Settings, told: Told) -> Settings {
    lease.session.settled(settings(told.settings));
    if told.prepared != Some(lease.session.prepared.len()) {
        lease.session.prepared.doubt();
    }
    // What isn't set was reset: to what the client began with.
    let present = &lease.session.settings;
    let is_missing = |name: &String| !present.iter().any(|(known, _)| known == name);
    let missing: Vec<_> = startup
        .iter()
        .filter(|(name, _)| is_missing(name))
        .cloned()
        .collect();
    if missing.is_empty() {
        present.clone()
    } else {
        changed(present, missing)
    }
}
