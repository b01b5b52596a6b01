//! The page of a list that an administrator asks for: `limit`, `after` and `sort` in the query.

use super::response::Problem;
use crate::limits;
use wsmb_protocol::handshake::pairs;

/// A page of a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    /// The most entries.
    pub(super) limit: usize,
    /// The last entry of the page before.
    pub(super) after: Option<String>,
    /// The order.
    pub(super) sort: &'static str,
}

impl Page {
    /// Reads the page. `orders`: the orders of the list; the first is the default.
    ///
    /// # Errors
    /// A parameter is unknown or invalid.
    pub(super) fn read(query: &str, orders: &[&'static str]) -> Result<Self, Problem> {
        let mut page =
            Self { limit: limits::ADMIN_PAGE, after: None, sort: orders.first().copied().unwrap_or_default() };
        for (name, value) in pairs(query) {
            let (Some(name), Some(value)) = (name, value) else {
                return Err(Problem::malformed("the query is not percent-encoded UTF-8"));
            };
            match &*name {
                "limit" => {
                    let most = limits::ADMIN_PAGE_MAX;
                    let limit = value.parse().ok().filter(|limit| (1..=most).contains(limit));
                    page.limit =
                        limit.ok_or_else(|| Problem::malformed(format!("'limit' must be from 1 to {most}")))?;
                }
                "after" => page.after = Some(value),
                "sort" => {
                    let order = orders.iter().find(|order| **order == value);
                    page.sort =
                        order.ok_or_else(|| Problem::malformed(format!("'sort' must be {}", orders.join(" or "))))?;
                }
                "ticket" => {}
                _ => return Err(Problem::malformed("the parameters of a list are limit, after and sort")),
            }
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_bounds_and_an_order() {
        let page = Page::read("limit=5&after=a%20b&sort=backlog", &["name", "backlog"]).unwrap();
        assert_eq!(page, Page { limit: 5, after: Some("a b".to_owned()), sort: "backlog" });
        assert_eq!(Page::read("", &["name"]).unwrap().sort, "name");
        for query in ["limit=0", "limit=1001", "sort=x", "x=1", "after=%ff"] {
            assert!(Page::read(query, &["name"]).is_err(), "{query}");
        }
    }
}
