//! Listing what this node holds, from the index alone.

use std::sync::Arc;

use super::{Core, KeyInfo, KeyPage};
use crate::model::Key;

/// The most keys of one page.
pub(crate) const MAX_PAGE_KEYS: usize = 10_000;

impl Core {
    /// A page in the order of names. Keys without a live value only where `deleted` asks for them.
    pub(super) fn list_keys(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
        deleted: bool,
    ) -> KeyPage {
        let limit = limit.clamp(1, MAX_PAGE_KEYS);
        let mut page = KeyPage::default();
        for key in self.index.names(prefix, after) {
            let Some(info) = self.key_info(key, deleted) else { continue };
            if page.keys.len() == limit {
                page.next = page.keys.last().map(|last| last.key.clone());
                break;
            }
            page.keys.push(info);
        }
        page
    }

    fn key_info(&self, key: &Key, deleted: bool) -> Option<KeyInfo> {
        let mut versions: Vec<_> = self.index.stored(key).map(Arc::new).collect();
        let live = versions.iter().any(|v| v.is_live(self.now.wall_ms));
        if versions.is_empty() || !(live || deleted) {
            return None;
        }
        if !deleted {
            versions.retain(|v| v.is_live(self.now.wall_ms));
        }
        versions.sort_by_key(|v| std::cmp::Reverse(v.recency()));
        let mirrors = versions.iter().map(|v| v.mirrors).max()?;
        Some(KeyInfo { key: key.clone(), mirrors, versions })
    }
}
