//! A file of this machine becomes a value.
//!
//! It is copied by the system, and shares its blocks with the value where the file system can do that. It
//! is never linked: who changes the file later would change the value.

use std::{fs, io, path::Path, sync::Arc, thread};

use super::{Begun, Question, writing::WriteOptions};
use crate::{
    gate::Reply,
    outcome,
    params::{ParamError, Params},
    reply,
    server::App,
};

/// `POST /copy`. The file is copied on a thread of its own, since it may lie on a slow disk.
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
    let (app, options) = (app.clone(), WriteOptions::parse(params)?);
    let copier = move || {
        if let Err(refusal) = import(&app, Path::new(&path), options, question.clone()) {
            question.answer(refusal);
        }
    };
    // Where no thread can be had, the request goes with the closure and is answered 500.
    if let Err(e) = thread::Builder::new().name("copy".into()).spawn(copier) {
        log::error!("no thread to import a file: {e}");
    }
    Ok(())
}

fn import(app: &App, path: &Path, options: WriteOptions, question: Question) -> Begun {
    let failed = |e: io::Error| {
        let status = if e.kind() == io::ErrorKind::NotFound { 404 } else { 400 };
        reply::error(status, "no_such_file", format!("The file can't be read: {e}."))
    };
    // Looked at before it is opened: opening a pipe would wait for its other end.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(reply::error(400, "no_such_file", "The path is no regular file; give one."));
    }
    let file = fs::File::open(path).map_err(failed)?;
    let writer = app.node.writer(&options.key).map_err(|e| outcome::refused(&e))?;
    let put = writer.import(&file).map_err(|e| -> Reply { outcome::not_kept(&e) })?;
    options.submit(put, question)
}
