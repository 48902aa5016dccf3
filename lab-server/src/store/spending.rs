//! What each key has spent: today, this month and ever, in UTC. Limits are checked against it.
//!
//! Keys that came in each other's place are one here, counted under the first of them: so replacing a key loosens no limit, also
//! not while both are taken.

use sea_orm::{ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, EntityTrait, ExprTrait, QueryFilter, sea_query};
use serde::Serialize;

use super::{Store, StoreError, api_keys};
use crate::{account::api_key::Kid, calendar};

pub(super) const DAY_MS: i64 = 86_400_000;

/// A time over which spending is added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SpendingWindow {
    /// A day.
    Day,
    /// A month.
    Month,
    /// Ever.
    Total,
}

impl SpendingWindow {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Day, Self::Month, Self::Total];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
            Self::Total => "total",
        }
    }

    /// Which of these windows a time is in: `2026-11-20`, `2026-11` or nothing.
    #[must_use]
    pub fn bucket(self, time_ms: i64) -> String {
        let (year, month, day) = calendar::date(u64::try_from(time_ms.div_euclid(DAY_MS)).unwrap_or_default());
        match self {
            Self::Day => format!("{year:04}-{month:02}-{day:02}"),
            Self::Month => format!("{year:04}-{month:02}"),
            Self::Total => String::new(),
        }
    }
}

/// What a key has spent, in nano-credits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Spent {
    /// In the day that was asked for.
    pub day: i64,
    /// In its month.
    pub month: i64,
    /// Ever.
    pub total: i64,
}

impl Store {
    /// What a key has spent in the windows that hold this time, with all those in whose place it came.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn spent(&self, kid: Kid, time_ms: i64) -> Result<Spent, StoreError> {
        let mut windows = Condition::any();
        for window in SpendingWindow::ALL {
            let this = Condition::all()
                .add(entity::Column::Window.eq(window.as_str()))
                .add(entity::Column::Bucket.eq(window.bucket(time_ms)));
            windows = windows.add(this);
        }
        let counts_as = api_keys::counts_as(&self.db, &kid.to_string()).await?;
        let rows = entity::Entity::find().filter(entity::Column::Kid.eq(counts_as)).filter(windows).all(&self.db).await?;
        let of = |window: SpendingWindow| rows.iter().find(|row| row.window == window.as_str()).map_or(0, |row| row.spent_nano);
        Ok(Spent { day: of(SpendingWindow::Day), month: of(SpendingWindow::Month), total: of(SpendingWindow::Total) })
    }
}

/// Adds to what is counted under a key in a window.
pub(super) async fn add(
    db: &impl ConnectionTrait,
    kid: &str,
    window: SpendingWindow,
    bucket: &str,
    nano: i64,
) -> Result<(), StoreError> {
    let row = entity::ActiveModel {
        kid: Set(kid.to_owned()),
        window: Set(window.as_str().to_owned()),
        bucket: Set(bucket.to_owned()),
        spent_nano: Set(nano),
    };
    let sum = sea_query::Expr::col((entity::Entity, entity::Column::SpentNano)).add(nano);
    let or_more = sea_query::OnConflict::columns([entity::Column::Kid, entity::Column::Window, entity::Column::Bucket])
        .value(entity::Column::SpentNano, sum)
        .to_owned();
    entity::Entity::insert(row).on_conflict(or_more).exec_without_returning(db).await?;
    Ok(())
}

/// Forgets days that ended before this time.
pub(super) async fn forget_days(db: &impl ConnectionTrait, before: i64) -> Result<(), StoreError> {
    entity::Entity::delete_many()
        .filter(entity::Column::Window.eq(SpendingWindow::Day.as_str()))
        .filter(entity::Column::Bucket.lt(SpendingWindow::Day.bucket(before)))
        .exec(db)
        .await?;
    Ok(())
}

#[allow(unreachable_pub, reason = "the derive writes pub items")]
mod entity {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "spending")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub kid: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub window: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub bucket: String,
        pub spent_nano: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        account::api_key::{Environment, NewKey},
        store::scratch::Scratch,
    };

    #[test]
    fn windows_are_those_of_utc() {
        let last = 1_793_491_199_999; // 2026-10-31T23:59:59.999Z
        let buckets = |time| SpendingWindow::ALL.map(|window| window.bucket(time));
        assert_eq!(buckets(last), ["2026-10-31", "2026-10", ""]);
        assert_eq!(buckets(last + 1), ["2026-11-01", "2026-11", ""]);
        assert_eq!(buckets(-1), ["1970-01-01", "1970-01", ""]);
    }

    #[tokio::test]
    async fn spending_adds_up_in_its_window() {
        let scratch = Scratch::new().await;
        let kid = NewKey::generate(Environment::Live).kid();
        let (october, november) = (1_793_491_199_999, 1_793_491_200_000);
        for (time, nano) in [(october, 5), (november, 7), (november, 1)] {
            for window in SpendingWindow::ALL {
                add(&scratch.store.db, &kid.to_string(), window, &window.bucket(time), nano).await.unwrap();
            }
        }
        assert_eq!(scratch.store.spent(kid, october).await.unwrap(), Spent { day: 5, month: 5, total: 13 });
        assert_eq!(scratch.store.spent(kid, november).await.unwrap(), Spent { day: 8, month: 8, total: 13 });
        forget_days(&scratch.store.db, november).await.unwrap();
        assert_eq!(scratch.store.spent(kid, october).await.unwrap(), Spent { day: 0, month: 5, total: 13 });
        assert_eq!(scratch.store.spent(kid, november).await.unwrap(), Spent { day: 8, month: 8, total: 13 });
        let other = NewKey::generate(Environment::Live).kid();
        assert_eq!(scratch.store.spent(other, november).await.unwrap(), Spent::default());
    }
}
