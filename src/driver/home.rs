//! The node's own folder: who it is and whom it knows, across restarts.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::{
    error::StartError,
    model::{Members, MembersFile, NodeId},
};

/// The members file under the home.
pub(crate) const MEMBERS_FILE: &str = "turbo_members.txt";

/// A folder that belongs to one node.
#[derive(Debug, Clone)]
pub(crate) struct Home(PathBuf);

impl Home {
    /// Makes the folder if it is not there.
    pub(crate) fn open(path: &Path) -> Result<Self, StartError> {
        fs::create_dir_all(path).map_err(|error| StartError::Home { path: path.into(), error })?;
        Ok(Self(path.into()))
    }

    /// Reads the members file, if there is one.
    pub(crate) fn members(&self) -> Result<Option<MembersFile>, StartError> {
        let path = self.0.join(MEMBERS_FILE);
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
        let this = crate::model::Member { state: crate::model::MemberState::Active, ..this };
        let peers = members.all().filter(|m| m.id != me).cloned().collect();
        let (path, part) = (self.0.join(MEMBERS_FILE), self.0.join(format!("{MEMBERS_FILE}.part")));
        let mut file = File::create(&part)?;
        file.write_all(MembersFile { this, peers }.to_string().as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, &path)?;
        File::open(&self.0)?.sync_all()
    }
}
