//! The node's own folder: who it is and whom it knows, across restarts.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    error::StartError,
    model::{Member, MemberState, Members, MembersFile, NodeId},
};

/// The members file under the home.
pub(crate) const MEMBERS_FILE: &str = "turbo_members.txt";

/// Locked as long as the node runs: a second one on the same home would be the same node twice.
const LOCK_FILE: &str = "turbopump.lock";

/// A folder that belongs to one node.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    path: PathBuf,
    _lock: Arc<File>,
}

impl Home {
    /// Makes the folder if it is not there, and locks it.
    pub(crate) fn open(path: &Path) -> Result<Self, StartError> {
        let lock = path.join(LOCK_FILE);
        let fail = |error| StartError::Home { path: path.into(), error };
        fs::create_dir_all(path).map_err(fail)?;
        let file = File::options().create(true).append(true).open(&lock).map_err(fail)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path: path.into(), _lock: Arc::new(file) }),
            Err(TryLockError::WouldBlock) => Err(StartError::Home {
                path: lock,
                error: io::Error::other("another node runs on this home"),
            }),
            Err(TryLockError::Error(error)) => Err(fail(error)),
        }
    }

    /// Reads the members file, if there is one.
    pub(crate) fn members(&self) -> Result<Option<MembersFile>, StartError> {
        let path = self.path.join(MEMBERS_FILE);
        match fs::read_to_string(&path) {
            Ok(text) => match text.parse() {
                Ok(file) => Ok(Some(file)),
                Err(error) => Err(StartError::MembersFile { path, error }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StartError::Home { path, error }),
        }
    }

    /// Replaces the members file as a whole, durably.
    pub(crate) fn keep_members(&self, me: NodeId, members: &Members) -> io::Result<()> {
        let Some(this) = members.find(me).cloned() else { return Ok(()) };
        // A node that was removed still knows who it is; one that is leaving goes on.
        let state = if this.is_present() { this.state } else { MemberState::Active };
        let this = Member { state, ..this };
        let peers = members.all().filter(|m| m.id != me).cloned().collect();
        let (path, part) = (self.path.join(MEMBERS_FILE), self.path.join(format!("{MEMBERS_FILE}.part")));
        let mut file = File::create(&part)?;
        file.write_all(MembersFile { this, peers }.to_string().as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, &path)?;
        File::open(&self.path)?.sync_all()
    }
}
