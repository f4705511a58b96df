"""Every limit put on bytes that we did not write, in one place, each with its unit.

They bound memory and time before anything is allocated. Generous against real models
(the largest known are noted), strict against nonsense. What a column of the catalog holds is
bounded where its schema is; what a process works on at once is no limit on input and stands where
the work is done.
"""

MIB = 1 << 20

# -- checkpoints --------------------------------------------------------------------------
MAX_HEADER_BYTES = 25 * MIB  # a safetensors header; 405B models need about 0.2 MiB a shard
MAX_ALL_HEADERS_BYTES = 256 * MIB  # of all shards of a checkpoint, which are kept
MAX_TENSORS = 200_000  # in one checkpoint; DeepSeek-V3 has 91,991
MAX_DIMENSIONS = 64
MAX_ELEMENTS = 1 << 48  # of a tensor that a manifest lists; more than any tensor has
MAX_EXPERTS = 4096  # in one fused tensor; DeepSeek-V3 has 256 a layer, Kimi K2 384
MAX_SCALE_BYTES = 256 * MIB  # of one table of scales; 2^31 elements in blocks of 16 need 32 MiB
MAX_NAME_BYTES = 1024  # of a tensor name, UTF-8
MAX_SHARDS = 10_000
MAX_OPEN_SHARDS = 256  # kept open by one reader; the usual limit of a process is 1,024 files
MAX_INDEX_BYTES = 64 * MIB  # model.safetensors.index.json

# -- folders ------------------------------------------------------------------------------
MAX_PATH_BYTES = 1024  # of a relative path, UTF-8
MAX_PATH_PART_BYTES = 255  # what common file systems allow between two slashes
MAX_FOLDER_DEPTH = 16  # folders in folders
MAX_FOLDER_ENTRIES = 20_000  # files and folders in a model folder, at all levels
MAX_CARRIED_FILE_BYTES = 128 * MIB  # a file that is not weights and travels with a release
MAX_CARRIED_FILES = 10_000

# -- configurations, tokenizers, adapters, recipes ----------------------------------------
MAX_CONFIG_BYTES = 16 * MIB  # config.json, generation_config.json, tokenizer_config.json
MAX_TOKENIZER_BYTES = 128 * MIB  # tokenizer.json; Gemma 3's has 33 MB
MAX_TOKEN_ID = 10**9
MAX_CARD_BYTES = 1 * MIB  # a model card, of which the licence is read
MAX_ADAPTER_RANK = 1 << 16  # of a LoRA; real ones have 4 … 1,024
MAX_ADAPTER_ALPHA = 1e9
MAX_PATTERNS = 20_000  # in an adapter's rank_pattern or alpha_pattern; one a module at most
MAX_PATTERN_CHARACTERS = 1024
MAX_PATTERN_STEPS = 20_000_000  # characters looked at for one adapter, at most ten seconds
MAX_RECIPE_BYTES = 1 << 18  # a YAML file that says what to apply
MAX_RECIPE_DEPTH = 16
MAX_CONTRIBUTIONS = 1000  # deltas added at once
MAX_ALPHA_PATTERNS = 4096  # of --alpha-for, ramps written out; each is tried on every tensor

# -- JSON ---------------------------------------------------------------------------------
MAX_JSON_DEPTH = 32
MAX_JSON_VALUES = 4_000_000  # in one document; Gemma 3's tokenizer.json has about 1.8 million
MAX_JSON_DIGITS = 400  # of an integer: int() is quadratic; a float64 needs 309
MAX_JSON_TEXT_BYTES = 512 * MIB  # in memory: one emoji makes every character of a text four bytes
MAX_PROBLEMS = 100  # listed one by one in an error; the rest is counted

# -- evaluation ---------------------------------------------------------------------------
MAX_TASK_BYTES = 256 * MIB  # of a task's file; GSM8K's test set has 0.75 MiB, MMLU's 7 MiB
MAX_TASK_LINE_BYTES = 4 * MIB
MAX_TASK_ITEMS = 1_000_000
MAX_SWEEP_POINTS = 10_000

# -- artifacts ----------------------------------------------------------------------------
MAX_SKETCHES_BYTES = 256 * MIB  # of all groups of a delta; an 8B Llama has 5 MiB, 405B 19 MiB
MAX_MANIFEST_BYTES = 256 * MIB
MAX_RELEASE_BYTES = 1 * MIB
MAX_RELEASE_NAME = 200  # characters
MAX_STORE_KEY = 512  # characters
MAX_LISTED_KEYS = 4_000_000  # of one listing of a store; a million releases have some of each kind
MAX_FRAME_ELEMENTS = 1 << 20
MAX_FRAME_BYTES = 16 * MIB  # one stored frame
MAX_PROLOGUE_BYTES = 1 * MIB  # of a coded tensor; a palette needs 132 kB at most
MAX_ZSTD_WINDOW_LOG = 23
MAX_ROW = 1 << 20  # elements of a row that a merge method looks at as one; real rows: 57,344
MAX_RANK = 1 << 14  # of a product of factors; adapters have 4 to 512
MAX_FACTOR_BYTES = (
    2048 * MIB
)  # one factor held in memory; rank 512 of 151,936 rows in float32: 311 MB
MAX_PROFILE_ELEMENTS = 1 << 25  # of a matrix whose singular values are taken: 128 MB a thread

# -- the hub ------------------------------------------------------------------------------
MAX_HEADER_PARTS = 64  # answers that a header may come in
MAX_HUB_PAGE_BYTES = 8 * MIB  # one page of a list; 1,000 files need about 0.3 MiB
MAX_HUB_PAGES = 10_000  # of one list; the hub puts 1,000 files on one
MAX_HUB_MODEL_BYTES = 32 * MIB  # what the hub says of a model and all its files
MAX_STORE_CARD_BYTES = 4 * MIB  # the page of a store
MAX_PROFILE_CHARACTERS = 1 * MIB  # a file of credentials

# -- signatures ---------------------------------------------------------------------------
MAX_KEY_BYTES = 1 << 14  # an OpenSSH private key file; an Ed25519 one has about 400
MAX_SIGNATURE_BYTES = 1 << 14  # an armored SSH signature; of Ed25519 about 300
MAX_SIGNATURES = 64  # looked at of one release
MAX_KEYRING_BYTES = 1 << 20  # a file of allowed signers
