use sovereign_schemas::EventHeader;

/// Before every department's topic name, behind the namespace.
const PREFIX: &str = "dept.";

/// Which topics and events are wanted; an empty list means all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    pub(crate) departments: Vec<String>,
    pub(crate) aggregate_types: Vec<String>,
    pub(crate) aggregate_ids: Vec<String>,
    pub(crate) event_types: Vec<String>,
}

fn wants(list: &[String], value: &str) -> bool {
    list.is_empty() || list.iter().any(|wanted| wanted == value)
}

impl Filter {
    pub(crate) fn event(&self, header: &EventHeader) -> bool {
        wants(&self.aggregate_types, &header.aggregate_type)
            && wants(&self.aggregate_ids, &header.aggregate_id)
            && wants(&self.event_types, &header.event_type)
    }

    pub(crate) fn topic(&self, namespace: &str, topic: &str) -> bool {
        let Some(name) = topic
            .strip_prefix(namespace)
            .and_then(|t| t.strip_prefix(PREFIX))
        else {
            return false;
        };
        self.departments.is_empty() || self.departments.iter().any(|p| matches(p, name))
    }

    /// In words, for an error.
    pub(crate) fn wanted(&self, namespace: &str) -> String {
        let any = ["*".to_owned()];
        let patterns = if self.departments.is_empty() {
            &any[..]
        } else {
            &self.departments[..]
        };
        let names: Vec<String> = patterns
            .iter()
            .map(|p| format!("{namespace}{PREFIX}{p}"))
            .collect();
        names.join(", ")
    }
}

/// Whether `name` matches the glob; `*` any characters, `?` one. Linear in both but for `*`.
fn matches(glob: &str, name: &str) -> bool {
    let (glob, name): (Vec<char>, Vec<char>) = (glob.chars().collect(), name.chars().collect());
    let (mut g, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match glob.get(g) {
            Some('*') => {
                star = Some((g, n));
                g += 1;
            }
            Some(&c) if c == '?' || c == name[n] => {
                g += 1;
                n += 1;
            }
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    g = at + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    glob[g..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn departments(patterns: &[&str]) -> Filter {
        Filter {
            departments: patterns.iter().map(|&p| p.to_owned()).collect(),
            ..Filter::default()
        }
    }

    #[test]
    fn globs_match_whole_names() {
        for (glob, name, expected) in [
            ("*", "trader", true),
            ("hun*", "hunter", true),
            ("hun*", "hun", true),
            ("*er", "hunter", true),
            ("h*t*r", "hunter", true),
            ("?unter", "hunter", true),
            ("hunte", "hunter", false),
            ("trader", "traders", false),
            ("", "x", false),
        ] {
            assert_eq!(matches(glob, name), expected, "{glob} {name}");
        }
    }

    #[test]
    fn only_department_topics_of_the_namespace_match() {
        let filter = departments(&["*"]);
        assert!(filter.topic("blue.", "blue.dept.trader"));
        assert!(!filter.topic("blue.", "dept.trader"));
        assert!(!filter.topic("", "commands"));
    }
}
