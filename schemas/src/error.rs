use std::fmt;

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $variant:ident = $text:literal, $exit:literal, $remedy:literal;)*) => {
        /// The stable name of a failure: scripts rely on it, `docs/errors/<code>.md` explains it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode { $($(#[doc = $doc])* $variant,)* }

        impl ErrorCode {
            /// All codes.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// As written in outcomes, responses and logs.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The process' exit code when this ends a command; docs/errors/README.md lists them.
            #[must_use]
            pub const fn exit_code(self) -> u8 {
                match self { $(Self::$variant => $exit,)* }
            }

            /// What to do about it, in one sentence.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }
        }
    };
}

codes! {
    /// A line is not one JSON object.
    MalformedJson = "malformed-json", 2, "send one JSON object a line, in UTF-8";
    /// A line is longer than the engine reads.
    LineTooLong = "line-too-long", 2, "keep a line below 2 MiB";
    /// A field that does not exist.
    UnknownField = "unknown-field", 2, "remove the field or correct its name";
    /// A field that has to be there.
    MissingField = "missing-field", 2, "add the field";
    /// A field of another type.
    WrongType = "wrong-type", 2, "write the field in the expected form";
    /// An aggregate type that does not exist.
    UnknownAggregate = "unknown-aggregate", 2, "use one of the expected aggregate types";
    /// A command that the aggregate does not have.
    UnknownCommand = "unknown-command", 2, "use one of the expected commands";
    /// A department that is not configured.
    UnknownDepartment = "unknown-department", 2, "use a configured department, or configure it";
    /// An id with a bad length or character.
    InvalidId = "invalid-id", 2, "use letters, digits and . _ : / @ + - within the length allowed";
    /// An amount that is not an exact decimal in range.
    InvalidAmount = "invalid-amount", 2, "write the amount as a positive decimal string, such as \"12.50\"";
    /// A text with characters that cannot be stored.
    InvalidText = "invalid-text", 2, "remove the NUL character";
    /// A text that is too long.
    TextTooLong = "text-too-long", 2, "keep a text below 256 KiB; store large material elsewhere and refer to it";
    /// An event that would be too large.
    PayloadTooLarge = "payload-too-large", 2, "keep an event below 1 MiB";
    /// An id that looks like a secret or personal data.
    SensitiveIdentifier = "sensitive-identifier", 4, "use an id that holds no secret, address or personal data";
    /// A market file that cannot be read.
    InvalidCsv = "invalid-csv", 2, "correct the line that is named";
    /// A command line that makes no sense.
    InvalidUsage = "invalid-usage", 2, "see the command's --help";
    /// A configuration file that cannot be used.
    InvalidConfig = "invalid-config", 2, "correct the setting that is named";
    /// Agents want something done, and nobody does it.
    AgentsIdle = "agents-idle", 1, "start a worker: sovereign worker, or sovereign up --workers 1; logs/worker.log says why one has ended";
    /// A program that acts as an agent failed again and again.
    ProgramFailed = "program-failed", 1, "read logs/program-NAME.log in the data folder, correct the program, and start the engine again";
    /// A definition of an agent that cannot be used.
    InvalidDefinition = "invalid-definition", 2, "correct the field that is named; a definition can only narrow the machine";
    /// A policy that cannot be used.
    InvalidPolicy = "invalid-policy", 2, "correct the line that is named";
    /// Schedules that cannot be used.
    InvalidSchedule = "invalid-schedule", 2, "correct the line that is named";
    /// A table that is not one of events.
    InvalidSource = "invalid-source", 2, "name the table of a postgres-es repository with --table";
    /// A range of positions that does not exist.
    InvalidRange = "invalid-range", 2, "choose positions between 1 and the head";
    /// An edge that the state machine does not have.
    IllegalTransition = "illegal-transition", 4, "move along an edge of the state machine; docs/ARCHITECTURE.md draws it";
    /// Something that has to be created first.
    NotFound = "not-found", 4, "create it first, or correct its id";
    /// Something that exists already.
    AlreadyExists = "already-exists", 4, "use another id, or go on with the one that exists";
    /// A command that does not fit the aggregate's state.
    WrongState = "wrong-state", 4, "look at the aggregate's events with sovereign log --aggregate, then decide";
    /// An amount that needs a human.
    ApprovalRequired = "approval-required", 4, "have the request approved first";
    /// A signature over another action, approval, policy or expiry.
    ApprovalTermsMismatch = "approval-terms-mismatch", 4, "open the approval again and sign what it shows now";
    /// An assertion that was used before.
    ApprovalReplayed = "approval-replayed", 4, "sign anew; one assertion counts once";
    /// An answer that comes too late.
    ApprovalExpired = "approval-expired", 4, "propose the action again, then answer within the time that the policy gives";
    /// Another policy holds than the one that asked.
    PolicyChanged = "policy-changed", 4, "propose the action again, so that the policy that holds now decides on it";
    /// Somebody approves what he asked for.
    SelfApproval = "self-approval", 4, "let another person approve";
    /// Somebody whom the policy does not name.
    NotApprover = "not-approver", 4, "let an approver whom the policy names answer, or adopt a policy that names this person";
    /// More than a person may approve.
    ApproverLimit = "approver-limit", 4, "let an approver with a higher limit answer";
    /// The same person or passkey twice.
    AlreadyApproved = "already-approved", 4, "let another person approve as well";
    /// A passkey that is not this person's.
    PasskeyUnknown = "passkey-unknown", 4, "use an enrolled passkey; sovereign approvers show lists them";
    /// A passkey that was revoked.
    PasskeyRevoked = "passkey-revoked", 4, "use another passkey, or enrol a new one";
    /// A passkey whose counter went back.
    PasskeyCloned = "passkey-cloned", 4, "revoke the passkey and enrol a new one: a copy of it may be in use";
    /// A page of somebody else.
    WrongOrigin = "wrong-origin", 4, "approve on the page on which the passkey was enrolled; if you did, somebody else's page tried to use your passkey";
    /// A passkey that signed for another relying party.
    WrongRelyingParty = "wrong-relying-party", 4, "use the passkey that was enrolled for this engine's page";
    /// The authenticator did not check who it is.
    UserNotVerified = "user-not-verified", 4, "unlock the passkey by PIN or biometrics";
    /// A signature that is not the passkey's.
    InvalidSignature = "invalid-signature", 4, "sign anew; if it happens again, somebody changes what you send";
    /// An assertion that cannot be read.
    InvalidAssertion = "invalid-assertion", 4, "send what navigator.credentials.get gave, unchanged";
    /// A registration of a passkey that proves nothing.
    InvalidRegistration = "invalid-registration", 4, "send what navigator.credentials.create gave, unchanged, with the challenge that was asked for";
    /// Numbers that contradict each other.
    AmountMismatch = "amount-mismatch", 4, "make amount equal quantity times price, rounded up to the cent";
    /// Too early.
    NotDue = "not-due", 4, "wait until it is due";
    /// The caller may not.
    Unauthorized = "unauthorized", 4, "use the token in the data folder, as its owner";
    /// A role that lacks the right.
    Forbidden = "forbidden", 4, "use a token whose role has the right; docs/API.md lists roles and rights";
    /// A page that cannot show that the request is its own.
    CsrfFailed = "csrf-failed", 4, "send the session's csrf_token in the header x-csrf-token";
    /// An answer to a challenge that nobody waits for.
    ChallengeUnknown = "challenge-unknown", 4, "ask for new options, and answer them once, within five minutes";
    /// A key that stands for another command.
    IdempotencyKeyReused = "idempotency-key-reused", 4, "use a new key for another command, or send the first one unchanged";
    /// More than an actor may ask for in this time.
    RateLimited = "rate-limited", 6, "wait for the time that is named, then send less at once";
    /// A reader that does not keep up.
    TooSlow = "too-slow", 6, "connect again with the last position that was read, and read faster or filter";
    /// A job waits for itself, or for one that does not exist.
    JobDependency = "job-dependency", 2, "let a job wait only for jobs that were submitted before it";
    /// Another worker has taken the job over.
    StaleAttempt = "stale-attempt", 1, "nothing: the worker drops the job, and the other goes on";
    /// A job that goes on although it is to be aborted.
    JobAborting = "job-aborting", 1, "nothing: its worker undoes what can be undone and ends it";
    /// Nobody knows whether an effect happened.
    EffectInDoubt = "effect-in-doubt", 4, "find out at the target, then sovereign jobs resolve JOB INDEX --done or --not-done";
    /// The aggregate has moved on.
    VersionConflict = "version-conflict", 1, "read the aggregate again and decide anew";
    /// The engine has too much to do just now.
    Busy = "busy", 6, "try again after the time that is named";
    /// Something took too long.
    TimedOut = "timed-out", 6, "try again; look at sovereign status for the part that is slow";
    /// Postgres does not answer.
    DatabaseUnreachable = "database-unreachable", 5, "check that the database runs and that the URL is right";
    /// Postgres refuses the login.
    DatabaseAuth = "database-auth", 5, "correct user or password in the database URL";
    /// Kafka does not answer.
    BrokerUnreachable = "broker-unreachable", 5, "check that the brokers run and that the addresses, TLS and SASL settings are right";
    /// Kafka refuses the login.
    BrokerAuth = "broker-auth", 5, "correct the SASL mechanism, user or password in the file of --kafka-properties";
    /// No TLS connection to a server comes about.
    TlsFailed = "tls-failed", 5, "correct the server's certificate, or the authority and host name that the client expects";
    /// A server lets us in, but not do this.
    MissingRights = "missing-rights", 1, "grant the right that is named; docs/OPERATIONS.md lists all that are needed";
    /// The schema registry does not answer, or refuses.
    RegistryUnreachable = "registry-unreachable", 5, "check the registry's URL and that it runs";
    /// No engine holds the data folder.
    EngineNotRunning = "engine-not-running", 5, "start it with sovereign up, or name its folder with --data";
    /// Another engine holds the data folder.
    DataFolderLocked = "data-folder-locked", 1, "stop the engine that holds it with sovereign down, or use another --data";
    /// The data folder cannot be used.
    DataFolderUnusable = "data-folder-unusable", 1, "make the folder writable, or use another --data";
    /// No room.
    DiskFull = "disk-full", 1, "free disk space; the engine goes on by itself";
    /// A port that somebody else uses.
    PortTaken = "port-taken", 1, "choose another port, or end the program that uses it";
    /// A program that has to be installed.
    MissingPrerequisite = "missing-prerequisite", 1, "install what is named";
    /// A local server that does not start or keeps dying.
    ServerFailed = "server-failed", 1, "read the end of the log that is named";
    /// A database written by a newer build.
    SchemaTooNew = "schema-too-new", 1, "use a build at least as new as the one that wrote the database";
    /// A copy that differs from what it should be.
    VerificationDifference = "verification-difference", 3, "keep both copies, find out who changed one, restore from a good one";
    /// A topic that has more than the ledger.
    TopicAhead = "topic-ahead", 3, "restore the newer ledger, or point the engine at fresh topics; nothing was overwritten";
    /// What the relay has committed and readers do not see.
    EventsHidden = "events-hidden", 5, "end the open transaction on that partition; the next events there may do it";
    /// Topic and ledger disagree.
    LedgerDiverged = "ledger-diverged", 3, "run sovereign verify on both; restore the right one";
    /// Bytes that are no event.
    DecodeFailed = "decode-failed", 3, "verify the copy; use a build that knows the event";
    /// A record whose value does not begin as an event's does.
    NotAnEvent = "not-an-event", 3, "find out who writes other records to this topic; sovereign dead-letters show prints what it is";
    /// A record whose headers are not those of an event.
    HeaderInvalid = "header-invalid", 3, "find out who wrote the record; only the relay writes events";
    /// A record that says two things about itself.
    HeaderContradiction = "header-contradiction", 3, "find out who wrote or changed the record; sovereign verify --source kafka names positions that differ";
    /// A schema id that stands for nothing, or something else.
    SchemaUnknown = "schema-unknown", 3, "point the consumer at the registry that the relay uses, or restore that registry";
    /// An event type or version from a newer build.
    EventUnknown = "event-unknown", 3, "use a build that knows the event, then retry the letter";
    /// A payload that is no datum of its schema.
    PayloadInvalid = "payload-invalid", 3, "verify the copy; restore it from the ledger";
    /// A view that stopped.
    ProjectionFailed = "projection-failed", 1, "correct the cause that is named; the view goes on by itself, or rebuild it";
    /// A version of a view that cannot be switched to or read yet.
    ViewNotReady = "view-not-ready", 1, "look at sovereign views list; wait until the version has caught up";
    /// A text whose key is gone or elsewhere.
    KeyMissing = "key-missing", 4, "use the data folder that holds the master key; an erased key stays erased";
    /// A master key other than that of the key database.
    WrongMasterKey = "wrong-master-key", 2, "give the engine the master key that the others have, with --master-key";
    /// An effect that says something impossible.
    InvalidEffect = "invalid-effect", 2, "correct the field that is named; docs/EFFECTS.md has the form of each kind";
    /// An effect that the policy or this machine does not allow.
    EffectRefused = "effect-refused", 4, "use what is allowed, or have an administrator allow it; docs/EFFECTS.md says where";
    /// An address that a tool may not be in.
    AddressRefused = "address-refused", 4, "correct the tool's address, or name its network in the tool's reach";
    /// A redirect that is not followed.
    RedirectRefused = "redirect-refused", 4, "correct the tool's base, or allow what its server redirects to";
    /// A tool's server cannot be reached.
    TargetUnreachable = "target-unreachable", 5, "check that the tool's server runs and that its base is right";
    /// A target said no.
    TargetRefused = "target-refused", 1, "look at the answer's status, and correct what was asked";
    /// A target failed.
    TargetFailed = "target-failed", 1, "find out at the target whether it happened, then resolve it";
    /// An answer that did not come whole.
    AnswerIncomplete = "answer-incomplete", 1, "find out at the target whether it happened, then resolve it";
    /// An answer that cannot be kept.
    AnswerTooLarge = "answer-too-large", 1, "ask the target for less, or raise the tool's answer_bytes_max";
    /// A secret that is not there.
    SecretMissing = "secret-missing", 2, "put the secret into its file or environment variable; docs/EFFECTS.md says which";
    /// A program that failed.
    ProcessFailed = "process-failed", 1, "look at the program's own log, then resolve it";
    /// Work that was called off after it had begun.
    CalledOff = "called-off", 1, "find out at the target whether it happened, then resolve it";
    /// A run over the past that wants what did not happen.
    NotRecorded = "not-recorded", 3, "use the log that the effect was recorded in, up to its outcome";
    /// A run over the past that wants something else.
    RecordingDiffers = "recording-differs", 3, "use the build that recorded it, or find out what changed";
    /// A mock run without an answer.
    NoMockAnswer = "no-mock-answer", 1, "add an answer for the effect to the script";
    /// A bug.
    Internal = "internal", 1, "report it with the log lines around it";
}

impl ErrorCode {
    /// The code with this name; [`Self::Internal`] for one that this build does not know.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        let known = Self::ALL.iter().copied().find(|c| c.as_str() == text);
        known.unwrap_or(Self::Internal)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl serde::Serialize for ErrorCode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for ErrorCode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Ok(Self::from_text(&text))
    }
}

/// A failure as a caller sees it: what was wrong, where, what was expected, what to do.
/// Holds no payload and no secret.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Problem {
    /// Stable name.
    pub code: ErrorCode,
    /// What was wrong.
    pub message: String,
    /// Where: a field, as a dotted path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Where: a line of the input, 1-based.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// What was expected there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What was found there, cut to 80 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
    /// When to try again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// What to do.
    pub remedy: String,
    /// Where it is explained.
    pub help: String,
}

impl Problem {
    /// A problem with the code's own remedy.
    ///
    /// # Examples
    /// ```
    /// use sovereign_schemas::{ErrorCode, Problem};
    /// let problem = Problem::new(ErrorCode::InvalidId, "has 10000 characters").field("id");
    /// assert_eq!(problem.help, "docs/errors/invalid-id.md");
    /// ```
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            field: None,
            line: None,
            expected: None,
            found: None,
            retry_after_ms: None,
            remedy: code.remedy().to_owned(),
            help: format!("docs/errors/{code}.md"),
        }
    }

    /// Names the field.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }

    /// Names the line.
    #[must_use]
    pub fn line(mut self, line: u64) -> Self {
        self.line = Some(line);
        self
    }

    /// Says what was expected.
    #[must_use]
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    /// Says what was found. Only for names and numbers, never for free text or secrets.
    #[must_use]
    pub fn found(mut self, found: impl AsRef<str>) -> Self {
        let mut short: String = found.as_ref().chars().take(80).collect();
        if short.len() < found.as_ref().len() {
            short.push('…');
        }
        self.found = Some(short);
        self
    }

    /// Says what to do in this case.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry_after_ms(mut self, after_ms: u64) -> Self {
        self.retry_after_ms = Some(after_ms);
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.code)?;
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(found) = &self.found {
            write!(f, "; found {found:?}")?;
        }
        if let Some(expected) = &self.expected {
            write!(f, "; expected {expected}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}
