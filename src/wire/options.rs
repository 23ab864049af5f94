//! The startup parameter `options`: command line switches for the server.
//!
//! Split as PostgreSQL's `pg_split_opts` does (`src/backend/utils/init/postinit.c`): white space separates, a
//! backslash takes the next character as it is. Only settings are understood (`-c name=value`, `-cname=value`
//! and `--name=value`, as in "postgres" reference page); any other switch is refused by name.

/// One setting: name and value, as written.
pub type Setting = (String, String);

/// A switch that isn't a setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("startup option \"{0}\" is not supported")]
pub struct UnsupportedSwitch(pub String);

/// The settings in `options`, in the order in which they stand there.
pub fn settings(options: &str) -> Result<Vec<Setting>, UnsupportedSwitch> {
    let mut settings = Vec::new();
    let mut words = split(options).into_iter();
    while let Some(word) = words.next() {
        let setting = match word.strip_prefix("--") {
            Some(setting) => setting.to_owned(),
            None => match word.strip_prefix("-c") {
                Some("") => words.next().ok_or_else(|| UnsupportedSwitch(word.clone()))?,
                Some(setting) => setting.to_owned(),
                None => return Err(UnsupportedSwitch(word)),
            },
        };
        let (name, value) = setting
            .split_once('=')
            .ok_or_else(|| UnsupportedSwitch(word.clone()))?;
        // As PostgreSQL's ParseLongOption: a dash in a name stands for an underscore.
        settings.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(settings)
}

fn split(options: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = options.chars();
    while let Some(character) = characters.next() {
        match character {
            c if c.is_ascii_whitespace() || c == '\x0b' => words.extend(word.take()),
            '\\' => word.get_or_insert_default().extend(characters.next()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_as_postgres_reads_them() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            settings(r"-c search_path=a\ b,c  -cgeqo=off --work-mem=4MB -c x=a=b --y="),
            Ok(vec![
                pair("search_path", "a b,c"),
                pair("geqo", "off"),
                pair("work_mem", "4MB"),
                pair("x", "a=b"),
                pair("y", ""),
            ])
        );
        assert_eq!(settings(""), Ok(vec![]));
        assert_eq!(settings(r"-c a=\\"), Ok(vec![pair("a", r"\")]));
        for bad in ["-e", "-c", "-c novalue", "work_mem=1", "-S 1024", "-"] {
            assert!(settings(bad).is_err(), "{bad}");
        }
    }
}
