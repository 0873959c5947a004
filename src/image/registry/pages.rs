//! Lists that come page by page, each page with the address of the next one (`Link`).
//!
//! Follows that address as long as it stays with the registry, and no further than a list can sensibly be long.

use ureq::http::Method;

use crate::error::{Error, Result};

use super::client::{Answer, Call, Client, Payload};
use super::origin::Origin;

/// Pages of a list that are asked for.
const PAGES: usize = 100;

impl Client {
    /// Asks for one page after the other; `take` gets each answer, whatever its status, and says whether it wants more.
    pub(super) fn pages(
        &self,
        first: String,
        scope: &str,
        headers: &[(&str, String)],
        take: &mut dyn FnMut(Answer) -> Result<bool>,
    ) -> Result<()> {
        let mut target = first;
        for _ in 0..PAGES {
            let answer =
                self.send(&Call { method: Method::GET, target: &target, scope, headers, payload: Payload::None })?;
            let here = Origin::of_url(&answer.url)?;
            let next = match answer.header("link").and_then(next_page) {
                Some(link) => Some(here.resolve(&answer.url, link)?),
                None => None,
            };
            if !take(answer)? {
                return Ok(());
            }
            match next {
                // A list goes on where it began, or not at all.
                Some(url) if Origin::of_url(&url)? == here => target = url,
                _ => return Ok(()),
            }
        }
        Err(Error::invalid(format!("limit: more than {PAGES} pages")))
    }
}

/// Reads `<URL>; rel="next"`.
fn next_page(link: &str) -> Option<&str> {
    let (url, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    rest.contains("rel=\"next\"").then_some(url)
}
