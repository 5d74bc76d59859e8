//! The page as it was written before: what is kept of it where a suite has no record in this build directory.

use std::collections::HashMap;

/// How a suite's section begins.
const SECTION: &str = "## ";
/// The section of the goals, which is no suite's.
const GOALS: &str = "Goals";

/// A page taken apart.
#[derive(Default)]
pub struct Before {
    /// By suite, with its heading.
    sections: HashMap<String, String>,
    /// Rows of the table of goals, by what is to be reached.
    goals: HashMap<String, String>,
}

// === impl Before ===

impl Before {
    /// Takes a page apart; what is not known in it is left out.
    pub fn read(page: &str) -> Self {
        let mut before = Self::default();
        let mut heading = "";
        for line in page.lines() {
            if let Some(name) = line.strip_prefix(SECTION) {
                heading = name;
            }
            if heading == GOALS {
                if let Some((work, _)) = line
                    .strip_prefix("| ")
                    .and_then(|row| row.split_once(" | "))
                {
                    before.goals.insert(work.to_owned(), line.to_owned());
                }
            } else if !heading.is_empty() {
                let section = before.sections.entry(heading.to_owned()).or_default();
                section.push_str(line);
                section.push('\n');
            }
        }
        before
    }

    /// What the page had about a suite, from its heading to its last line.
    pub fn section(&self, suite: &str) -> Option<&str> {
        self.sections.get(suite).map(|section| section.trim_end())
    }

    /// The row of this goal.
    pub fn goal(&self, work: &str) -> Option<&str> {
        self.goals.get(work).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_taken_apart_into_its_goals_and_its_sections() {
        let page = "# Benchmarks\n\n## Goals\n\n| work | goal | measured | |\n| --- | --- | --- | --- |\n\
            | a hit | ≤ 2 × | 1.43 × | met |\n\n## hit\n\nWhat?\n\n| a | b |\n\n## peers\n\nWho?\n";
        let before = Before::read(page);
        assert_eq!(
            before.goal("a hit"),
            Some("| a hit | ≤ 2 × | 1.43 × | met |")
        );
        assert_eq!(before.goal("a miss"), None);
        assert_eq!(before.section("hit"), Some("## hit\n\nWhat?\n\n| a | b |"));
        assert_eq!(before.section("peers"), Some("## peers\n\nWho?"));
        assert_eq!(before.section("front"), None);
    }
}
