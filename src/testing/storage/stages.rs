//! Clauses about values that arrive in pieces.

use super::{StorageSuite, parts::*};
use crate::{
    model::Digest,
    storage::{StageId, Storage, StorageError},
};

impl<S: Storage> StorageSuite<'_, S> {
    pub(super) fn staging(&self) {
        let storage = self.made();
        let value = noise(1, 300_001);
        let mut pieces: Vec<(u64, &[u8])> = (0..).step_by(10_000).zip(value.chunks(10_000)).collect();
        pieces.reverse();
        for (offset, piece) in pieces.iter().chain(&pieces[..7]) {
            storage.stage(StageId(1), *offset, piece).expect("staging");
            storage.stage(StageId(2), *offset, b"another stage").expect("staging");
        }
        assert_eq!(dots(&storage, "k"), [], "what is staged is not visible");
        ok(&storage, &[put("k", version(1, b"old"), b"old", &[])]);
        ok(&storage, &[commit(1, "k", version(2, &value), &[1])]);
        assert_eq!(dots(&storage, "k"), [2], "a commit replaces like a put");
        assert!(read_pieces(&storage, &key("k"), dot(2), 65_536) == value, "other bytes than were staged");
        let again = only(storage.apply(&[commit(1, "k", version(3, &value), &[])]));
        assert!(matches!(again, Err(StorageError::Missing)), "a stage is committed once; again: {again:?}");
        storage.stage(StageId(3), 0, b"short").expect("staging");
        ok(&storage, &[commit(3, "short", version(4, b"short"), &[])]);
        assert_eq!(read(&storage, &key("short")), [record(version(4, b"short"), b"short")]);
    }

    pub(super) fn refuses_wrong_content(&self) {
        let storage = self.made();
        ok(&storage, &[put("k", version(1, b"good"), b"good", &[])]);
        let mut long = version(3, b"goods");
        long.digest = Digest::of(b"good");
        for (n, lie) in
            [version(2, b"Good"), long, version(4, b"goo"), version(5, b"")].into_iter().enumerate()
        {
            let stage = n as u64;
            storage.stage(StageId(stage), 0, b"good").expect("staging");
            let refused = only(storage.apply(&[commit(stage, "k", lie, &[1])]));
            assert!(matches!(refused, Err(StorageError::Damaged { .. })), "wrong content: {refused:?}");
            assert_eq!(dots(&storage, "k"), [1], "a refused commit leaves what was there");
            let gone = only(storage.apply(&[commit(stage, "k", version(6, b"good"), &[])]));
            assert!(matches!(gone, Err(StorageError::Missing)), "a refused stage is discarded: {gone:?}");
        }
    }

    pub(super) fn refuses_holes(&self) {
        let storage = self.made();
        let value = noise(1, 30_000);
        storage.stage(StageId(1), 0, &value[..10_000]).expect("staging");
        storage.stage(StageId(1), 20_000, &value[20_000..]).expect("staging");
        storage.stage(StageId(2), 20_000, b"").expect("staging");
        for stage in [1, 2] {
            let refused = only(storage.apply(&[commit(stage, "k", version(stage, &value), &[])]));
            assert!(matches!(refused, Err(StorageError::Damaged { .. })), "a stage with a hole: {refused:?}");
        }
        assert_eq!(dots(&storage, "k"), []);
    }

    pub(super) fn discard(&self) {
        let storage = self.made();
        storage.stage(StageId(1), 0, b"v").expect("staging");
        storage.discard(StageId(1));
        storage.discard(StageId(1));
        storage.discard(StageId(77));
        let gone = only(storage.apply(&[commit(1, "k", version(1, b"v"), &[])]));
        assert!(matches!(gone, Err(StorageError::Missing)), "a discarded stage: {gone:?}");
    }
}
