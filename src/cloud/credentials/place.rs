//! The places where keys are looked for, in their order, and how each is read.
//!
//! The first place that has one half of a pair must have the other half too, and one that is there has to be readable:
//! to go on to the next place would sign with a key the user did not mean. A place that once had the key is asked alone
//! from then on, for the same reason.

use std::path::{Path, PathBuf};

use super::answer::{self, Handed};
use super::error::CredentialsError;
use super::file::{self, Stamp};
use super::means::{self, Means, Pair, Part};
use super::{Credentials, Env, Source, command, role, server};
use crate::cloud::Authorities;
use crate::secrets::Text;

/// The variables that are looked at, in this order. The vendor's SDKs, its command line tool and its Terraform provider
/// read the same ones (the last two share the variable of the token).
pub(super) const VARIABLES: [Variables; 3] = [
    Variables {
        prefix: "ALIBABA_CLOUD",
        id: "ALIBABA_CLOUD_ACCESS_KEY_ID",
        secret: "ALIBABA_CLOUD_ACCESS_KEY_SECRET",
        token: "ALIBABA_CLOUD_SECURITY_TOKEN",
    },
    Variables {
        prefix: "ALICLOUD",
        id: "ALICLOUD_ACCESS_KEY_ID",
        secret: "ALICLOUD_ACCESS_KEY_SECRET",
        token: "ALICLOUD_SECURITY_TOKEN",
    },
    Variables {
        prefix: "ALICLOUD",
        id: "ALICLOUD_ACCESS_KEY",
        secret: "ALICLOUD_SECRET_KEY",
        token: "ALICLOUD_SECURITY_TOKEN",
    },
];

pub(super) struct Variables {
    prefix: &'static str,
    pub(super) id: &'static str,
    pub(super) secret: &'static str,
    token: &'static str,
}

/// The files of systemd's credential directory.
const FILES: [&str; 3] = ["access_key_id", "access_key_secret", "security_token"];

/// A place where a key can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// Files in the directory that systemd made for the service.
    Directory(PathBuf),
    /// The environment.
    Environment,
    /// The file of the aliyun command line tool.
    Cli(PathBuf),
    /// The INI file of the vendor's SDKs.
    Ini(PathBuf),
    /// The role of this ECS instance.
    Metadata(String),
    /// A server.
    Uri(String),
}

/// What a search goes by: the environment, the profile that the configuration names, and whom a server is believed by.
pub(super) struct Search {
    pub(super) env: Env,
    pub(super) profile: Option<String>,
    pub(super) authorities: Authorities,
}

/// The first key there is.
pub(super) struct First {
    pub(super) place: Place,
    /// What the place looked like before it was read.
    pub(super) stamps: Vec<Stamp>,
    pub(super) key: Credentials,
}

/// A place, and what became of the search there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// The place as people name it.
    pub place: String,
    /// Whether the key is from here.
    pub won: bool,
    /// Why it is or is not, free of secrets.
    pub why: String,
}

/// A place by its name, or why there is none of that kind.
type Named = (String, Result<Place, String>);

impl Place {
    /// What the files of the place look like now. A place without files always looks the same.
    pub(super) fn stamps(&self) -> Vec<Stamp> {
        match self {
            Self::Directory(dir) => FILES.map(|name| file::stamp(&dir.join(name))).to_vec(),
            Self::Cli(path) | Self::Ini(path) => vec![file::stamp(path)],
            Self::Environment | Self::Metadata(_) | Self::Uri(_) => Vec::new(),
        }
    }
}

impl Search {
    /// The first key there is, and where. What became of the search in each place is added to `looked`, in their order.
    pub(super) async fn first(&self, looked: &mut Vec<Looked>) -> Result<First, CredentialsError> {
        let mut tell = |place: String, won, why: &str| {
            let why = why.to_owned();
            looked.push(Looked { place, won, why });
        };
        let mut found: Option<Result<First, CredentialsError>> = None;
        let mut files = Vec::new();
        for (name, place) in self.places() {
            let place = match (place, &found) {
                (Err(why), _) => {
                    tell(name, false, &why);
                    continue;
                }
                (Ok(_), Some(Ok(_))) => {
                    tell(
                        name,
                        false,
                        "not looked at, since a place before it has a key",
                    );
                    continue;
                }
                (Ok(_), Some(Err(_))) => {
                    let why = "not looked at, since a place before it is there and cannot be used";
                    tell(name, false, why);
                    continue;
                }
                (Ok(place), None) => place,
            };
            if matches!(place, Place::Metadata(_) | Place::Uri(_)) && self.wanted().is_some() {
                let why = "not looked at, since a profile is asked for by its name";
                tell(name, false, why);
                continue;
            }
            if let Place::Cli(path) | Place::Ini(path) = &place {
                files.push(path.display().to_string());
            }
            // Taken first: what changes from here on is a change.
            let stamps = place.stamps();
            match self.load(&place).await {
                Ok(Some(key)) => {
                    tell(name, true, &key.source.to_string());
                    found = Some(Ok(First { place, stamps, key }));
                }
                Ok(None) => tell(name, false, &self.lacking(&place)),
                Err(error) => {
                    tell(name, false, &error.to_string());
                    found = Some(Err(error));
                }
            }
        }
        match (found, self.wanted()) {
            (Some(found), _) => found,
            (None, None) => Err(CredentialsError::NotFound),
            (None, Some(name)) => Err(CredentialsError::NoProfile {
                name: means::shown(&name),
                looked: match files.is_empty() {
                    true => "any file, since none may be looked into".into(),
                    false => files.join(" or "),
                },
            }),
        }
    }

    /// The places that are looked at, in their order.
    fn places(&self) -> Vec<Named> {
        let unset = |variable: &str| format!("{variable} is not set");
        let file = |variable: &str, usual: &str| match (self.var(variable), self.var("HOME")) {
            (Some(path), _) => Ok(PathBuf::from(path)),
            (None, Some(home)) => Ok(Path::new(&home).join(usual)),
            (None, None) => Err(format!("neither {variable} nor HOME is set")),
        };
        let switched = |variable: &str| match self.is_on(variable) {
            true => Err(format!("{variable} switches it off")),
            false => Ok(()),
        };
        let named = |name: &str, place| (name.to_owned(), place);
        let of_file = |place: Result<PathBuf, String>, usual: &str, kind: fn(PathBuf) -> Place| {
            let name = place.as_ref().map(|path| path.display().to_string());
            (name.unwrap_or_else(|_| usual.to_owned()), place.map(kind))
        };
        let cli = file("ALIBABA_CLOUD_CONFIG_FILE", ".aliyun/config.json");
        let cli = switched("ALIBABA_CLOUD_CLI_PROFILE_DISABLED").and(cli);
        let ini = file(
            "ALIBABA_CLOUD_CREDENTIALS_FILE",
            ".alibabacloud/credentials",
        );
        let variable = |name| self.var(name).ok_or_else(|| unset(name));
        let role = switched("ALIBABA_CLOUD_ECS_METADATA_DISABLED")
            .and_then(|()| variable("ALIBABA_CLOUD_ECS_METADATA"));
        let directory = variable("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let uri = variable("ALIBABA_CLOUD_CREDENTIALS_URI");
        let mut places = vec![
            named("systemd credential", directory.map(Place::Directory)),
            named("environment", Ok(Place::Environment)),
            of_file(cli, "~/.aliyun/config.json", Place::Cli),
            of_file(ini, "~/.alibabacloud/credentials", Place::Ini),
            named("ECS role", role.map(Place::Metadata)),
            named("credentials URI", uri.map(Place::Uri)),
        ];
        // The vendor's clients know this one as well, and whoever has set it up should not wonder.
        if self.var("ALIBABA_CLOUD_OIDC_TOKEN_FILE").is_some() {
            let why = "er-dev does not support it; let a command print the key with the mode External of the aliyun \
                       command line tool";
            places.push(named("OIDC provider", Err(why.into())));
        }
        places
    }

    /// Why a place that could be looked at has no key.
    fn lacking(&self, place: &Place) -> String {
        match place {
            Place::Directory(dir) => format!("{} has no {}", dir.display(), FILES[0]),
            Place::Environment => {
                let ids = VARIABLES.map(|names| names.id);
                format!("none of {} is set", ids.join(", "))
            }
            Place::Cli(path) | Place::Ini(path) if std::fs::symlink_metadata(path).is_err() => {
                "there is no such file".into()
            }
            Place::Cli(_) | Place::Ini(_) => match self.wanted() {
                Some(name) => format!("it has no profile `{}`", means::shown(&name)),
                None => "its usual profile is not there, not filled in or switched off".into(),
            },
            Place::Metadata(_) | Place::Uri(_) => "it has no key".into(),
        }
    }

    /// The key of a place, if it has one.
    pub(super) async fn load(
        &self,
        place: &Place,
    ) -> Result<Option<Credentials>, CredentialsError> {
        match place {
            Place::Directory(dir) => in_directory(dir),
            Place::Environment => self.in_environment(),
            Place::Cli(path) => {
                self.in_file(path, "ALIBABA_CLOUD_CONFIG_FILE", means::of_cli)
                    .await
            }
            Place::Ini(path) => {
                self.in_file(path, "ALIBABA_CLOUD_CREDENTIALS_FILE", means::of_ini)
                    .await
            }
            Place::Metadata(role) => {
                let role = Means::Role(Some(role.clone()));
                let place = "the role that ALIBABA_CLOUD_ECS_METADATA names";
                self.obtain(place, Source::EcsRole, role).await.map(Some)
            }
            Place::Uri(uri) => {
                let place = "the server that ALIBABA_CLOUD_CREDENTIALS_URI names";
                let uri = Means::Uri(uri.clone());
                self.obtain(place, Source::CredentialsUri, uri)
                    .await
                    .map(Some)
            }
        }
    }

    fn in_environment(&self) -> Result<Option<Credentials>, CredentialsError> {
        for names in &VARIABLES {
            let part = |name: &str| (name.to_owned(), self.var(name).map(Text::new));
            let source = Source::Environment(names.prefix);
            let found = Credentials::from_pair(
                source,
                part(names.id),
                part(names.secret),
                part(names.token),
            )?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The key of a profile in a file. `variable` is what names the file, where it is not the usual one.
    async fn in_file(
        &self,
        path: &Path,
        variable: &str,
        read: fn(&str, Option<&str>) -> Result<means::Found, String>,
    ) -> Result<Option<Credentials>, CredentialsError> {
        let unusable = |what: String| CredentialsError::Unusable {
            place: path.display().to_string(),
            what,
        };
        let Some(text) = file::read(path)? else {
            return match self.var(variable) {
                Some(_) => Err(unusable(format!(
                    "there is no such file; {variable} names it"
                ))),
                None => Ok(None),
            };
        };
        let Some((name, means)) = read(&text, self.wanted().as_deref()).map_err(unusable)? else {
            return Ok(None);
        };
        let name = means::shown(&name);
        let place = format!("profile `{name}` of {}", path.display());
        self.obtain(&place, Source::Profile(name), means)
            .await
            .map(Some)
    }

    /// The key that is meant.
    async fn obtain(
        &self,
        place: &str,
        source: Source,
        means: Means,
    ) -> Result<Credentials, CredentialsError> {
        let unusable = |what: String| CredentialsError::Unusable {
            place: place.to_owned(),
            what,
        };
        let handed = match means {
            Means::Pair(pair) => return of_pair(place, source, pair),
            Means::Assumed(pair, role) => {
                let key = of_pair(place, source.clone(), pair)?;
                let address = self.var("ER_DEV_STS_ADDRESS");
                role::assume(&role, &key, address.as_deref(), &self.authorities)
                    .await
                    .and_then(|text| answer::of_role(&text).map_err(str::to_owned))
            }
            Means::Command(_) if self.is_on("ALIBABA_CLOUD_DISABLE_EXTERNAL_PROCESS") => Err(
                "its key is printed by a command, which ALIBABA_CLOUD_DISABLE_EXTERNAL_PROCESS forbids"
                    .to_owned(),
            ),
            Means::Command(line) => command::run(&line, &*self.env)
                .await
                .and_then(|text| answer::of_command(&text).map_err(str::to_owned)),
            Means::Uri(uri) => server::uri(&uri, &self.authorities)
                .await
                .and_then(|text| answer::of_server(&text).map_err(str::to_owned)),
            Means::Role(_) if self.is_on("ALIBABA_CLOUD_ECS_METADATA_DISABLED") => Err(
                "its key is an ECS role's, which ALIBABA_CLOUD_ECS_METADATA_DISABLED switches off"
                    .to_owned(),
            ),
            Means::Role(role) => {
                let address = self.var("ER_DEV_METADATA_ADDRESS");
                server::metadata(role.as_deref(), address.as_deref())
                    .await
                    .and_then(|text| answer::of_server(&text).map_err(str::to_owned))
            }
        };
        let Handed {
            id,
            secret,
            token,
            ends,
        } = handed.map_err(unusable)?;
        let part = |name: &str, value| (format!("the {name} of {place}"), value);
        let found = Credentials::from_pair(
            source,
            part("key id", Some(id)),
            part("secret", Some(secret)),
            part("token", token),
        )?;
        let found = found.ok_or_else(|| unusable("it has no key".into()))?;
        Ok(Credentials { ends, ..found })
    }

    /// The profile that was asked for by its name.
    fn wanted(&self) -> Option<String> {
        let profile = self.profile.clone();
        profile.or_else(|| self.var("ALIBABA_CLOUD_PROFILE"))
    }

    /// A variable that is set and not empty.
    fn var(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|value| !value.is_empty())
    }

    fn is_on(&self, name: &str) -> bool {
        self.var(name)
            .is_some_and(|value| value == "1" || value.eq_ignore_ascii_case("true"))
    }
}

/// The key whose parts stand in a file.
fn of_pair(place: &str, source: Source, pair: Pair) -> Result<Credentials, CredentialsError> {
    let part = |(name, value): Part| (format!("`{name}` of {place}"), value);
    let (id, secret, token) = (part(pair.id), part(pair.secret), part(pair.token));
    let found = Credentials::from_pair(source, id, secret, token)?;
    found.ok_or_else(|| CredentialsError::Unusable {
        place: place.to_owned(),
        what: "it has no key".into(),
    })
}

fn in_directory(dir: &Path) -> Result<Option<Credentials>, CredentialsError> {
    let file = |name: &str| {
        let path = dir.join(name);
        let value = file::read_credential(&path)?.filter(|value| !value.is_empty());
        Ok((path.display().to_string(), value))
    };
    let [id, secret, token] = FILES;
    Credentials::from_pair(
        Source::SystemdCredential,
        file(id)?,
        file(secret)?,
        file(token)?,
    )
}
