//! Listings: by prefix, in pages, with and without what is deleted.

use turbopump::{KeyPage, Node};

fn names(page: &KeyPage) -> Vec<&str> {
    page.keys.iter().map(|info| info.key.as_str()).collect()
}

fn filled() -> Node {
    let node = Node::builder().start().unwrap();
    for name in ["b/2", "a", "b/1", "b/3", "c", "b"] {
        node.put(name, "value").wait().unwrap();
    }
    node
}

#[test]
fn keys_are_listed_by_name() {
    let page = filled().keys().wait().unwrap();
    assert_eq!(names(&page), ["a", "b", "b/1", "b/2", "b/3", "c"]);
    assert_eq!(page.next, None);
}

#[test]
fn a_prefix_narrows_the_list() {
    let node = filled();
    assert_eq!(names(&node.keys().prefix("b/").wait().unwrap()), ["b/1", "b/2", "b/3"]);
    assert_eq!(names(&node.keys().prefix("b").after("b/2").wait().unwrap()), ["b/3"]);
    assert_eq!(names(&node.keys().prefix("d").wait().unwrap()), [""; 0]);
}

#[test]
fn pages_put_together_are_the_whole_list() {
    let (node, mut all, mut after) = (filled(), Vec::new(), None);
    loop {
        let mut keys = node.keys().limit(4);
        if let Some(after) = after.take() {
            keys = keys.after(after);
        }
        let page = keys.wait().unwrap();
        assert!(page.keys.len() <= 4);
        all.extend(page.keys.iter().map(|info| info.key.to_string()));
        match page.next {
            Some(next) => after = Some(next.to_string()),
            None => break,
        }
    }
    assert_eq!(all, ["a", "b", "b/1", "b/2", "b/3", "c"]);
}

#[test]
fn a_page_that_holds_the_last_key_says_so() {
    let page = filled().keys().limit(6).wait().unwrap();
    assert_eq!((page.keys.len(), page.next), (6, None));
    let page = filled().keys().after("b/3").limit(1).wait().unwrap();
    assert_eq!((names(&page), page.next.clone()), (vec!["c"], None));
}

#[test]
fn a_deleted_key_is_listed_on_demand_only() {
    let node = filled();
    node.delete("a").wait().unwrap();
    assert_eq!(names(&node.keys().limit(1).wait().unwrap()), ["b"]);
    let page = node.keys().limit(1).deleted(true).wait().unwrap();
    assert_eq!(names(&page), ["a"]);
    assert_eq!(page.keys[0].versions[0].kind, turbopump::model::Kind::Tombstone);
}
