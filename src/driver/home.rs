//! The node's own folder: who it is and whom it knows, across restarts.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    error::StartError,
    identity::Identity,
    model::{Member, MemberState, Members, MembersFile, NodeId},
};

/// The members file under the home.
pub(crate) const MEMBERS_FILE: &str = "turbo_members.txt";

/// The secret key under the home.
const KEY_FILE: &str = "turbopump.key";

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

    /// Reads the members file of a home, if there is one. Needs no lock.
    pub(crate) fn members_of(home: &Path) -> Result<Option<MembersFile>, StartError> {
        let path = home.join(MEMBERS_FILE);
        match fs::read_to_string(&path) {
            Ok(text) => match text.parse() {
                Ok(file) => Ok(Some(file)),
                Err(error) => Err(StartError::MembersFile { path, error }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(StartError::Home { path, error }),
        }
    }

    /// Reads the key pair of a home; makes one where there is none. Needs no lock: of several who do
    /// so at once, one wins and all get the same.
    pub(crate) fn identity_of(home: &Path) -> Result<Identity, StartError> {
        let path = home.join(KEY_FILE);
        let identity = match read_secret(&path) {
            Ok(Some(text)) => Identity::from_secret_text(&text).map_err(io::Error::other),
            Ok(None) => make_identity(home, &path),
            Err(error) => Err(error),
        };
        identity.map_err(|error| StartError::Home { path, error })
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

/// The text of a file that nobody else may read, if there is one.
fn read_secret(path: &Path) -> io::Result<Option<String>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mode = file.metadata()?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let text = format!("others may read or write this secret key (mode {mode:o}): set its mode to 600");
        return Err(io::Error::other(text));
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(Some(text))
}

fn make_identity(home: &Path, path: &Path) -> io::Result<Identity> {
    let identity = Identity::generate();
    fs::create_dir_all(home)?;
    // Written as a whole under a name of its own, then given its name unless another was quicker.
    let part = home.join(format!("{KEY_FILE}.{}.part", std::process::id()));
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(identity.secret_text().as_bytes())?;
    file.sync_all()?;
    let linked = fs::hard_link(&part, path);
    fs::remove_file(&part)?;
    match linked {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    File::open(home)?.sync_all()?;
    let text = read_secret(path)?.ok_or_else(|| io::Error::other("it is gone again"))?;
    Identity::from_secret_text(&text).map_err(io::Error::other)
}
