"""croissant.json: MLCommons Croissant 1.1 metadata with the Responsible AI (RAI 1.0) vocabulary."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

from datasheets.answers import Answers
from datasheets.automatic.lifecycle import FORBIDDEN_USES, guidance, intended_uses
from datasheets.automatic.procedure import procedure_in_words
from datasheets.datasheet import Datasheet
from datasheets.dictionary import ColumnEntry, data_dictionary
from datasheets.questions import Subject
from datasheets.reading import Reading, exact, plural
from datasheets.statements import not_covered_in_words, promise_in_words, unit_in_words
from synth.facts import PublicFacts

NO_LICENCE = "The steward has stated no licence. Do not assume permission to use or share the data."
CONFORMS_TO = ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]
PARQUET = "application/x-parquet"
MEDIA_TYPES = {
    ".parquet": PARQUET,
    ".json": "application/json",
    ".yaml": "application/yaml",
    ".html": "text/html",
    ".md": "text/markdown",
    ".png": "image/png",
}
FIELD_TYPES = {
    "int64": "sc:Integer",
    "float64": "sc:Float",
    "bool": "sc:Boolean",
    "timestamp[us]": "sc:DateTime",
    "string": "sc:Text",
    "struct<bytes: binary, path: string>": "sc:ImageObject",
}
ROWS = "rows"
PARTS = "parts"


class FileDigest(BaseModel):
    """What identifies a file of the bundle: lower-case hex SHA-256 and size in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


def croissant(
    facts: PublicFacts, answers: Answers, sheet: Datasheet, files: Mapping[str, FileDigest]
) -> dict[str, Any]:
    """The metadata as JSON-LD. `files` maps bundle-relative names to digests, the data files among them."""
    absent = [name for name in facts.data.files if name not in files]
    if absent:
        raise ValueError(f"no digest was given for the data files {absent}")
    return {
        "@context": _context(),
        "@type": "sc:Dataset",
        "conformsTo": CONFORMS_TO,
        "name": facts.run.name,
        **_about(facts, answers),
        **_responsible(facts, sheet),
        "distribution": [*(_file(name, files[name]) for name in sorted(files)), *_file_set(facts)],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": ROWS,
                "name": ROWS,
                "description": f"{plural(facts.data.rows, 'synthetic row')}; no row is a person.",
                "field": [_field(entry, facts) for entry in data_dictionary(facts)],
            }
        ],
    }


def _about(facts: PublicFacts, answers: Answers) -> dict[str, Any]:
    run, privacy = facts.run, facts.privacy
    description = (
        f"Synthetic data: a differentially private table of {run.dataset}, epsilon ="
        f" {exact(privacy.epsilon)}, delta = {exact(privacy.delta)}, unit: {privacy.privacy_unit}. No"
        " row is a person."
    )
    about: dict[str, Any] = {
        "description": f"{answers.description}\n\n{description}" if answers.description else description,
        "dateCreated": run.created,
        # The day it was sealed: a bundle never changes, and when it is handed out is not known to it.
        "datePublished": run.created[:10],
        "version": f"1.0.0+{re.sub(r'[^0-9A-Za-z-]+', '-', run.run_id).strip('-') or 'run'}",
        "isLiveDataset": False,
        "keywords": list(dict.fromkeys([*answers.keywords, "synthetic data", "differential privacy"])),
    }
    if answers.title:
        about["alternateName"] = answers.title
    if answers.licence:
        about["license"] = answers.licence
    else:
        about["conditionsOfAccess"] = NO_LICENCE
    if answers.citation:
        about["citeAs"] = answers.citation
    if answers.curator:
        about["creator"] = about["publisher"] = {"@type": "sc:Organization", "name": answers.curator}
    return about


def _responsible(facts: PublicFacts, sheet: Datasheet) -> dict[str, Any]:
    read = Reading(facts)

    def told(question: str, subject: Subject = "source") -> list[str]:
        text = sheet.text(question, subject)
        return [f"About the source: {text}"] if text else []

    def synthetic(question: str) -> str:
        return f"About the synthetic data: {sheet.text(question, 'synthetic')}"

    terms: dict[str, Any] = {
        "rai:dataCollection": f"About the synthetic data: {procedure_in_words(read)}",
        "rai:dataCollectionType": ["Others: synthetic data drawn from a differentially private generative model"],
        "rai:dataCollectionMissingData": synthetic("composition.missing"),
        "rai:dataCollectionRawData": "\n\n".join(
            [*told("collection.acquisition"), "The source is private and is not part of this bundle."]
        ),
        "rai:dataPreprocessingProtocol": [f"About the source: {sheet.text('preprocessing.steps', 'source')}"],
        "rai:personalSensitiveInformation": [
            f"About the synthetic data: {promise_in_words(read)} {unit_in_words(read)}",
            *(f"Not covered: {item}" for item in not_covered_in_words(read)),
            synthetic("composition.sensitive"),
            *told("composition.sensitive"),
        ],
        "rai:dataBiases": [synthetic("uses.impact"), *told("uses.impact")],
        "rai:dataLimitations": [*guidance(read), *(f"Not to be used for: {use}" for use in FORBIDDEN_USES)],
        "rai:dataUseCases": list(intended_uses(read)),
        "rai:dataReleaseMaintenancePlan": synthetic("maintenance.updates"),
        # Not yet among RAI 1.0's published terms, and what readers of the vocabulary look for.
        "rai:hasSyntheticData": True,
    }
    impact = sheet.text("collection.impact", "both")
    if impact:
        terms["rai:dataSocialImpact"] = impact
    return terms


def _file(name: str, digest: FileDigest) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": quote(name),
        "name": name,
        "contentUrl": name,
        "contentSize": f"{digest.bytes} B",
        "encodingFormat": MEDIA_TYPES.get(PurePosixPath(name).suffix, "application/octet-stream"),
        "sha256": digest.sha256,
    }


def _file_set(facts: PublicFacts) -> list[dict[str, Any]]:
    """Several data files are one table: a set that joins them."""
    if len(facts.data.files) == 1:
        return []
    return [
        {
            "@type": "cr:FileSet",
            "@id": PARTS,
            "name": PARTS,
            "encodingFormat": PARQUET,
            "includes": f"{PurePosixPath(facts.data.files[0]).parent}/*.parquet",
        }
    ]


def _field(entry: ColumnEntry, facts: PublicFacts) -> dict[str, Any]:
    one = len(facts.data.files) == 1
    source = {"fileObject": {"@id": quote(facts.data.files[0])}} if one else {"fileSet": {"@id": PARTS}}
    words = [entry.description, f"Domain: {entry.domain}."]
    if entry.unit:
        words.append(f"Unit: {entry.unit}.")
    if entry.nullable:
        words.append("May be missing.")
    return {
        "@type": "cr:Field",
        "@id": f"{ROWS}/{quote(entry.name, safe='')}",
        "name": entry.name,
        "description": " ".join(word for word in words if word),
        "dataType": FIELD_TYPES[entry.output_type],
        "source": {**source, "extract": {"column": entry.name}, **_bytes_of(entry)},
    }


def _bytes_of(entry: ColumnEntry) -> dict[str, Any]:
    """Where in a cell a picture's file is."""
    return {"transform": {"jsonPath": "bytes"}} if entry.kind == "image" else {}


def _context() -> dict[str, Any]:
    """The standard context of Croissant 1.1, and the RAI prefix."""
    own = (
        "arrayShape citeAs column conformsTo containedIn equivalentProperty extract field fileObject"
        " fileProperty fileSet format includes isArray isLiveDataset jsonPath key md5 parentField path"
        " recordSet references regex repeated replace samplingRate separator source subField transform"
    )
    return {
        "@language": "en",
        "@vocab": "https://schema.org/",
        **{name: f"cr:{name}" for name in own.split()},
        "conformsTo": "dct:conformsTo",
        "cr": "http://mlcommons.org/croissant/",
        "data": {"@id": "cr:data", "@type": "@json"},
        "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
        "dct": "http://purl.org/dc/terms/",
        "description": {"@container": "@language"},
        "examples": {"@id": "cr:examples", "@type": "@json"},
        "name": {"@container": "@language"},
        "rai": "http://mlcommons.org/croissant/RAI/",
        "sc": "https://schema.org/",
    }
