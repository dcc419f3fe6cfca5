//! `turbopumpd member`: who belongs to the cluster, from the command line.
//!
//! In a cluster with admins a change is signed here, where the admin's key is, and given to any node that is
//! up, which needs not be trusted with anything. Otherwise the node makes it its own. `--print` gives the
//! line for a members file instead, for a cluster that is not born yet.

use std::{
    fmt::Write as _,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Subcommand;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use turbopump::{
    Appointment, FOR_GOOD, Member, NodeId, PublicKey, Warrant,
    model::{MembersFile, signature_text},
};

use crate::{
    gate::{BearerToken, ListenAt},
    params::parse_addrs,
    sign::signer,
};

/// How long the node may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// The longest answer that is read, bytes.
const MAX_ANSWER_BYTES: u64 = 64 << 20;

/// Which node is asked, and what.
#[derive(clap::Args, Clone, Debug, PartialEq, Eq)]
pub struct MemberArgs {
    /// Any node of the cluster: HOST:PORT, :PORT or the path of its unix socket
    #[arg(long, value_name = "ADDR", default_value = "localhost:1592", global = true)]
    pub node: ListenAt,

    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What is done about members.
#[derive(Subcommand, Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// List the members that a node knows
    List,
    /// Make a node a member, or tell where one is that has not spoken yet
    Add {
        /// Its id, as turbopumpd id prints it
        id: NodeId,
        /// Its address, IP:PORT, or several with a bar between two
        #[arg(value_parser = addrs)]
        addrs: Addrs,
        /// Its public key, as turbopumpd id prints it
        key: Option<PublicKey>,
        /// The secret key of an admin, for a cluster that names some (--admin-key)
        #[arg(short, long, value_name = "PATH")]
        key_file: Option<PathBuf>,
        /// One more than before, for a member that left and comes back
        #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..FOR_GOOD as i64))]
        generation: u32,
        /// Print the line for a members file, and change nothing
        #[arg(long)]
        print: bool,
    },
    /// Remove a member; where members are signed, neither its id nor its key ever comes back
    Remove {
        /// Its id
        id: NodeId,
        /// Its public key [default: what the node knows]
        key: Option<PublicKey>,
        /// The secret key of an admin, for a cluster that names some (--admin-key)
        #[arg(short, long, value_name = "PATH")]
        key_file: Option<PathBuf>,
    },
}

/// Addresses of one node.
pub type Addrs = std::sync::Arc<[SocketAddr]>;

fn addrs(text: &str) -> Result<Addrs, String> {
    let addrs = parse_addrs(text).ok_or("it is IP:PORT, or several with a bar between two")?;
    Ok(addrs.into())
}

/// Does what is asked for, and prints what came of it.
///
/// # Errors
/// What is wrong, as one line; nothing was changed, unless the node did not answer.
pub fn run(args: &MemberArgs, cluster: &str, token_file: Option<&Path>) -> Result<(), String> {
    let ask = |method, call: &str| ask(&args.node, method, call, token_file);
    match &args.action {
        Action::List => print!("{}", table(&ask("GET", "/membership")?)),
        Action::Add { id, addrs, key, key_file, generation, print } => {
            let signed = match (key_file, key) {
                (Some(path), Some(key)) => Some(sign(path, cluster, *id, *key, *generation)?),
                (Some(_), None) => return Err("an admin names a member with its public key".into()),
                (None, _) => None,
            };
            if *print {
                print!("{}", line(*id, addrs, *key, signed));
                return Ok(());
            }
            let addrs: Vec<String> = addrs.iter().map(ToString::to_string).collect();
            let mut call = format!("/add-peer?uid={id}&ip={}", encoded(&addrs.join("|")));
            key.iter().for_each(|key| _ = write!(call, "&key={key}"));
            ask("POST", &(call + &query(signed)))?;
            println!("{id} is a member");
        }
        Action::Remove { id, key, key_file } => {
            let known = || known_key(&ask("GET", "/membership")?, *id);
            let mut call = format!("/remove-peer?uid={id}");
            if let Some(path) = key_file {
                let key = key.map_or_else(known, Ok)?;
                let signed = sign(path, cluster, *id, key, FOR_GOOD)?;
                _ = write!(call, "&key={key}{}", query(Some(signed)));
            }
            ask("POST", &call)?;
            println!("{id} is no member any more");
        }
    }
    Ok(())
}

fn sign(
    path: &Path,
    cluster: &str,
    id: NodeId,
    key: PublicKey,
    generation: u32,
) -> Result<(u32, Warrant), String> {
    let appointment = Appointment { cluster: cluster.into(), id, key, generation };
    Ok((generation, signer(path)?.appoint(&appointment)))
}

fn query(signed: Option<(u32, Warrant)>) -> String {
    signed.map_or_else(String::new, |(generation, warrant)| {
        let signature = signature_text(&warrant.signature);
        format!("&generation={generation}&signer={}&signature={signature}", warrant.signer)
    })
}

/// As it stands in a members file.
fn line(id: NodeId, addrs: &[SocketAddr], key: Option<PublicKey>, signed: Option<(u32, Warrant)>) -> String {
    let this = match (key, signed) {
        (Some(key), Some((generation, warrant))) => warrant.entry(id, key, generation, addrs.to_vec()),
        _ => Member { key: key.into(), ..Member::new(id, addrs.to_vec()) },
    };
    let file = MembersFile { this, peers: Vec::new() }.to_string();
    file.lines().last().map(|line| format!("{line}\n")).unwrap_or_default()
}

fn known_key(membership: &Value, id: NodeId) -> Result<PublicKey, String> {
    let members = membership["members"].as_array().into_iter().flatten();
    let member = members.into_iter().find(|m| m["id"] == id.as_str());
    let member = member.ok_or_else(|| format!("the node knows no member {id}"))?;
    let key = member["key"].as_str().and_then(|key| key.parse().ok());
    key.ok_or_else(|| format!("the node knows no key of {id}: name it"))
}

fn table(membership: &Value) -> String {
    let mut out = String::new();
    for m in membership["members"].as_array().into_iter().flatten() {
        let text = |name: &str| m[name].as_str().unwrap_or("-").to_owned();
        let addrs: Vec<&str> =
            m["addrs"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let signed = if m["signer"].is_null() { "" } else { " signed" };
        let addrs = if addrs.is_empty() { "none".into() } else { addrs.join("|") };
        _ = writeln!(out, "{} {addrs} {} {}{signed}", text("id"), text("key"), text("state"));
    }
    out
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// One call, on a connection of its own.
fn ask(node: &ListenAt, method: &str, call: &str, token_file: Option<&Path>) -> Result<Value, String> {
    let token = token_file.map(BearerToken::read).transpose()?;
    let token = token.as_ref().map(BearerToken::header).unwrap_or_default();
    let request = format!(
        "{method} {call} HTTP/1.1\r\nHost: localhost\r\n{token}Content-Length: 0\r\nConnection: close\r\n\r\n"
    );
    let answer = exchange(node, request.as_bytes()).map_err(|e| format!("node {node}: {e}"))?;
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    let body_at = match head.parse(&answer) {
        Ok(httparse::Status::Complete(at)) => at,
        _ => return Err(format!("node {node}: this is no answer of a turbopumpd")),
    };
    let body: Value = serde_json::from_slice(&answer[body_at..])
        .map_err(|e| format!("node {node}: this is no answer of a turbopumpd: {e}"))?;
    match head.code {
        Some(200) => Ok(body),
        code => Err(format!(
            "node {node} answers {}: {}",
            code.unwrap_or_default(),
            body["detail"].as_str().unwrap_or_default()
        )),
    }
}

fn exchange(node: &ListenAt, request: &[u8]) -> io::Result<Vec<u8>> {
    match node {
        ListenAt::Tcp(host, port) => {
            let stream = TcpStream::connect((host.as_str(), *port))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            talk(stream, request)
        }
        ListenAt::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            talk(stream, request)
        }
    }
}

fn talk(mut stream: impl Read + Write, request: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(request)?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer)?;
    Ok(answer)
}
