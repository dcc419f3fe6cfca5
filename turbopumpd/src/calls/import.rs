//! A file of this machine becomes a value.

use std::{fs, io, io::Read as _, path::Path, sync::Arc, thread};

use bytes::Bytes;

use super::{Begun, Question, writing::store};
use crate::{
    gate::Reply,
    params::{ParamError, Params},
    reply,
    server::App,
};

/// `POST /copy`. The file is read on a thread of its own, since it may lie on a slow disk.
pub fn copy(app: &Arc<App>, params: &Params, question: Question) -> Begun {
    if !question.is_from_this_machine() {
        let detail = "Files are imported only over a unix socket; send it there.";
        return Err(reply::error(403, "forbidden", detail));
    }
    let expected = "the absolute path of a file of this machine";
    let path = params.text("path").ok_or(ParamError::Missing { name: "path", expected })?.to_owned();
    if !path.starts_with('/') || path.contains('\0') {
        return Err(ParamError::Malformed { name: "path".into(), expected: expected.into() }.into());
    }
    let (app, params) = (app.clone(), params.clone());
    let reader = move || {
        let value = |app: &App| import(Path::new(&path), app.max_value_bytes);
        if let Err(refusal) = store(&app, &params, question.clone(), value) {
            question.answer(refusal);
        }
    };
    // Where no thread can be had, the request goes with the closure and is answered 500.
    if let Err(e) = thread::Builder::new().name("copy".into()).spawn(reader) {
        log::error!("no thread to import a file: {e}");
    }
    Ok(())
}

fn import(path: &Path, max_bytes: u64) -> Result<Bytes, Reply> {
    let failed = |e: io::Error| {
        let status = if e.kind() == io::ErrorKind::NotFound { 404 } else { 400 };
        reply::error(status, "no_such_file", format!("The file can't be read: {e}."))
    };
    // Looked at before it is opened: opening a pipe would wait for its other end.
    let metadata = fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(reply::error(400, "no_such_file", "The path is no regular file; give one."));
    }
    let mut value = Vec::new();
    let file = fs::File::open(path).map_err(failed)?;
    file.take(max_bytes + 1).read_to_end(&mut value).map_err(failed)?;
    if value.len() as u64 > max_bytes {
        let detail = format!("The file is longer than the limit of {max_bytes} bytes.");
        return Err(reply::error(413, "too_large", detail));
    }
    Ok(value.into())
}
