//! The description of the HTTP interface (OpenAPI 3.1), for programs and their generators. `docs/http.md` is for people.
//!
//! Never here: a resource that does not exist. The tests compare the document with the router.

/// The document, written by hand.
pub(super) const DOCUMENT: &str = include_str!("openapi.json");

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use hyper::Method;
    use serde_json::Value;

    use super::super::router::Resource;
    use super::*;

    /// The methods of each path in the document.
    fn described() -> BTreeMap<String, Vec<String>> {
        let document: Value = serde_json::from_str(DOCUMENT).unwrap();
        let operations = |item: &Value| {
            let names = item.as_object().unwrap().keys().filter(|name| *name != "parameters");
            names.map(|name| name.to_uppercase()).collect()
        };
        document["paths"].as_object().unwrap().iter().map(|(path, item)| (path.clone(), operations(item))).collect()
    }

    /// The paths that the router matches, from the patterns in its source.
    fn routed() -> Vec<String> {
        let source = include_str!("router.rs");
        let patterns = source.lines().filter_map(|line| line.trim().strip_prefix("[\"")?.split_once("] => Self::"));
        let paths = patterns.map(|(pattern, _)| {
            let parts = pattern.split(", ").map(|part| match part.strip_suffix('"') {
                Some(text) => text.trim_start_matches('"').to_owned(),
                None => format!("{{{part}}}"),
            });
            parts.fold(String::new(), |path, part| path + "/" + &part)
        });
        paths.collect()
    }

    #[test]
    fn the_document_and_the_router_have_the_same_resources_and_methods() {
        let described = described();
        let mut routed = routed();
        routed.sort();
        assert_eq!(described.keys().collect::<Vec<_>>(), routed.iter().collect::<Vec<_>>());
        for (path, mut names) in described {
            let resource = Resource::of(&path.replace(['{', '}'], "")).unwrap().unwrap_or_else(|| panic!("{path}"));
            // `HEAD` needs no description: it is `GET` without the body.
            let methods = resource.methods().iter().filter(|method| *method != Method::HEAD);
            let mut methods: Vec<&str> = methods.map(Method::as_str).collect();
            methods.sort_unstable();
            names.sort();
            assert_eq!(names, methods, "{path}");
        }
    }
}
