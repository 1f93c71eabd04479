"""What Chalice makes of serverless/: a template for CloudFormation, a package that runs alone."""

import base64
import hashlib
import json
import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit
from zipfile import ZipFile

import boto3
import httpx
import pytest

from chatledger.http.chalice import TIME_LIMIT
from chatledger.models.bedrock import arns
from chatledger.models.bedrock import policy as bedrock_policy
from chatledger.stores.dynamodb import check_table
from chatledger.stores.dynamodb import policy as dynamodb_policy
from chatledger.testing.dynamodb_local import KEY, DynamoDBLocal
from chatledger.testing.dynamodb_local import REGION as LOCAL_REGION
from tests.http.client import at, deleted, ids, listed, refused, said, shown, someone
from tests.http.tokens import headers, key_server
from tests.serverless.aws import aws
from tests.serverless.gateway import SERVERLESS, Gateway
from tests.serverless.packages import REGION, STAGES, Function, chalice, lint, new_project, running
from tests.serverless.tables import RESOURCES, made, of_type, table_of

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Fields = dict[str, Any]

MEGABYTE = 1024 * 1024
ABOUT = {
    *("app.py", "chalicelib", "chalice", "chatledger", "uuid_utils", "msgspec"),
    *("joserfc", "cryptography", "cffi", "_cffi_backend", "pycparser"),
}
"""What a package may hold at its top."""

runs_here = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"),
    reason="The package is for AWS Lambda's Linux.",
)
each_stage = pytest.mark.parametrize("stage", STAGES)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_project(tmp_path_factory.mktemp("project"), "chalice")


@pytest.fixture(scope="module")
def packages(project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By its stage, the folder of what ``chalice package`` made."""
    made = {}
    for stage in STAGES:
        folder = tmp_path_factory.mktemp(stage)
        options = ["--stage", stage, "--merge-template", "resources.json"]
        said = chalice(project, "package", *options, str(folder))
        assert "Could not install" not in said, said
        made[stage] = folder
    return made


@pytest.fixture
def template(stage: str, packages: dict[str, Path]) -> Fields:
    return template_in(packages[stage])


def template_in(package: Path) -> Fields:
    found: Fields = json.loads((package / "sam.json").read_text())
    return found


@pytest.fixture(scope="module")
def config() -> Fields:
    found: Fields = json.loads((SERVERLESS / ".chalice" / "config.json").read_text())
    return found


def variables_of(template: Fields) -> dict[str, str]:
    found = template["Resources"]["APIHandler"]["Properties"]["Environment"]["Variables"]
    return cast("dict[str, str]", found)


# What is written ----------------------------------------------------------------------------------


def test_the_policies_and_resources_are_those_of_the_configuration(project: Path) -> None:
    """``make serverless`` writes them anew after a change of .chalice/config.json."""
    written = [Path("resources.json"), *(Path(".chalice", f"policy-{s}.json") for s in STAGES)]
    for path in written:
        assert (SERVERLESS / path).read_text() == (project / path).read_text(), path


@each_stage
def test_a_policy_is_what_the_store_and_bedrock_say_for_that_stage(
    stage: str, config: Fields
) -> None:
    variables = config["stages"][stage]["environment_variables"]
    table = urlsplit(variables["CHATLEDGER_STORE"]).netloc
    wanted = [
        each
        for each in dynamodb_policy(f"arn:aws:dynamodb:*:*:table/{table}")["Statement"]
        if each["Sid"] != "ChatledgerCreates"  # the deployment makes the table
    ]
    model = variables["CHATLEDGER_MODEL"].removeprefix("bedrock:")
    wanted += bedrock_policy(arns(model))["Statement"]
    found = policy_of(stage, config)["Statement"]
    assert found[: len(wanted)] == wanted
    assert {each["Sid"] for each in found[len(wanted) :]} == {"ChatledgerLogs", "ChatledgerTraces"}


@each_stage
def test_a_policy_names_only_what_its_stage_needs(stage: str, config: Fields) -> None:
    (other,) = set(STAGES) - {stage}
    for statement in policy_of(stage, config)["Statement"]:
        assert statement["Effect"] == "Allow"
        assert not [action for action in statement["Action"] if "*" in action]
        resources = statement["Resource"]
        for resource in [resources] if isinstance(resources, str) else resources:
            assert f"chatledger-{other}" not in resource
            if statement["Sid"] == "ChatledgerTraces":
                assert resource == "*"
            else:
                # Of regions and accounts a policy cannot know before it is deployed.
                assert "*" not in resource.split(":", 5)[5].removesuffix(":*"), resource


def policy_of(stage: str, config: Fields) -> Fields:
    path = SERVERLESS / ".chalice" / config["stages"][stage]["iam_policy_file"]
    found: Fields = json.loads(path.read_text())
    return found


# The template -------------------------------------------------------------------------------------


def test_cfn_lint_finds_nothing_in_the_templates(packages: dict[str, Path]) -> None:
    templates = [packages[stage] / "sam.json" for stage in STAGES]
    lint(*templates)


@each_stage
def test_the_function_has_the_settings_and_the_policy_of_its_stage(
    stage: str, template: Fields, config: Fields
) -> None:
    function = template["Resources"]["APIHandler"]["Properties"]
    assert variables_of(template).items() >= {
        ("CHATLEDGER_STORE", f"dynamodb://chatledger-{stage}?patience=2s"),
        ("CHATLEDGER_EXPIRE_AFTER", "30d"),
    }
    assert function["Timeout"] <= 29  # API Gateway waits no longer
    assert function["Tracing"] == "Active"
    assert ("ReservedConcurrentExecutions" in function) == (stage == "prod")
    (role,) = of_type(template, "IAM::Role").values()
    (policy,) = role["Properties"]["Policies"]
    assert policy["PolicyDocument"] == policy_of(stage, config)


@each_stage
def test_the_table_is_the_one_of_the_configuration_and_prod_keeps_it(
    stage: str, template: Fields
) -> None:
    table = table_of(template, stage)
    assert table == table_of(RESOURCES, stage)
    properties = table["Properties"]
    assert urlsplit(variables_of(template)["CHATLEDGER_STORE"]).netloc == properties["TableName"]
    assert properties["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    lasting = stage == "prod"
    assert properties["DeletionProtectionEnabled"] is lasting
    fate = "Retain" if lasting else "Delete"
    assert (table["DeletionPolicy"], table["UpdateReplacePolicy"]) == (fate, fate)


@each_stage
def test_the_gateways_own_answers_have_the_shape_of_the_api(stage: str, template: Fields) -> None:
    responses = template["Resources"]["RestAPI"]["Properties"]["GatewayResponses"]
    assert {"DEFAULT_4XX", "DEFAULT_5XX"} <= responses.keys()
    for response in responses.values():
        body = json.loads(response["ResponseTemplates"]["application/json"])
        answer = httpx.Response(response.get("StatusCode", 400), json=body)
        refused(answer, answer.status_code)
        headers = response["ResponseParameters"]["Headers"]
        assert headers["Access-Control-Allow-Origin"] == "'*'"
    assert responses["UNAUTHORIZED"]["ResponseParameters"]["Headers"]["WWW-Authenticate"]


@each_stage
def test_errors_throttles_and_duration_are_watched_and_logs_end(
    stage: str, template: Fields
) -> None:
    alarms = of_type(template, "CloudWatch::Alarm").values()
    watched = {each["Properties"]["MetricName"] for each in alarms}
    assert {"Errors", "Throttles", "Duration", "5XXError"} <= watched
    (slow,) = [each for each in alarms if each["Properties"]["MetricName"] == "Duration"]
    # A turn that is cut off takes that long, and rings.
    assert slow["Properties"]["Threshold"] < TIME_LIMIT / timedelta(milliseconds=1)
    (group,) = of_type(template, "Logs::LogGroup").values()
    name = group["Properties"]["LogGroupName"]["Fn::Sub"]
    function = template["Resources"]["APIHandler"]["Properties"]["FunctionName"]["Fn::Sub"]
    assert name == f"/aws/lambda/{function}"
    assert template["Mappings"]["LogDays"][stage]["Days"] <= 90


def test_with_a_user_pool_api_gateway_turns_away_who_has_not_signed_in(
    project: Path, tmp_path: Path
) -> None:
    pool = "arn:aws:cognito-idp:eu-west-1:123456789012:userpool/eu-west-1_aBcDeFgHi"
    configured = tmp_path / "serverless"
    shutil.copytree(project, configured, ignore=shutil.ignore_patterns("vendor"))
    path = configured / ".chalice" / "config.json"
    config = json.loads(path.read_text())
    config["stages"]["prod"]["environment_variables"] |= {
        "CHATLEDGER_AUTH": "jwt",
        "CHATLEDGER_JWT_AUDIENCE": "1example23456789",
        "CHATLEDGER_COGNITO_USER_POOL": pool,
    }
    path.write_text(json.dumps(config))
    options = ["--stage", "prod", "--merge-template", "resources.json"]
    chalice(configured, "package", *options, str(tmp_path / "made"))
    lint(tmp_path / "made" / "sam.json")
    template = template_in(tmp_path / "made")
    definition = template["Resources"]["RestAPI"]["Properties"]["DefinitionBody"]
    authorizer = definition["securityDefinitions"]["users"]["x-amazon-apigateway-authorizer"]
    assert authorizer == {"type": "cognito_user_pools", "providerARNs": [pool]}
    for address, methods in definition["paths"].items():
        for operation in methods.values():
            asked = operation.get("security")
            assert asked == (None if address in ("/", "/health") else [{"users": []}]), address
    assert variables_of(template)["CHATLEDGER_COGNITO_USER_POOL"] == pool


# The table that it makes --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client(dynamodb_local: DynamoDBLocal) -> Iterator["DynamoDBClient"]:
    client = dynamodb_local.client()
    yield client
    client.close()


@each_stage
def test_the_table_is_as_the_store_wants_it(
    stage: str, template: Fields, client: "DynamoDBClient"
) -> None:
    with made(client, table_of(template, stage), ttl=True) as name:
        check_table(client, name)


# The package --------------------------------------------------------------------------------------


@each_stage
def test_the_package_holds_what_is_needed_and_is_small(
    stage: str, packages: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    package = packages[stage] / "deployment.zip"
    with ZipFile(package) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
        whole = sum(each.file_size for each in archive.infolist())
        compiled = [name for name in archive.namelist() if "chatledger/http/__pycache__/" in name]
    held = sorted(name for name in tops if not name.endswith(".dist-info"))
    size = package.stat().st_size
    with capsys.disabled():
        megabytes = f"{size / MEGABYTE:.1f} MB, {whole / MEGABYTE:.1f} MB unpacked"
        print(f"\nThe package of {stage} ({megabytes}): {', '.join(held)}.")
    assert {name.partition(".cpython")[0] for name in held} == ABOUT
    assert compiled  # on Lambda each start would do it anew
    assert size < 50 * MEGABYTE
    assert whole < 250 * MEGABYTE


@contextmanager
def serving(
    package: Path, folder: Path, **variables: str
) -> Iterator[tuple[httpx.Client, Function]]:
    """A client of the package's function behind API Gateway."""
    with (
        running(package, folder, **variables) as function,
        Gateway(function.app, stage="dev").client() as client,
    ):
        yield client, function


OFFLINE = {"CHATLEDGER_MODEL": "offline", "CHATLEDGER_OFFLINE_PACE": "0"}


def a_conversation_of_two(client: httpx.Client) -> None:
    user = someone()
    assert client.get("/health").status_code == 200
    place = said(client, "Hi, I am Bob", user_id=user)["conversation_id"]
    answer = said(client, "What is my name?", user_id=user, conversation_id=place)
    assert "Bob" in answer["response"]
    assert len(shown(client, place, user_id=user)["messages"]) == 4
    assert ids(listed(client, user_id=user)) == [place]
    deleted(client, place, user_id=user)
    refused(client.get(at(place)), 404)


@runs_here
@each_stage
def test_the_package_runs_alone(stage: str, packages: dict[str, Path], tmp_path: Path) -> None:
    variables = variables_of(template_in(packages[stage])) | OFFLINE
    variables["CHATLEDGER_STORE"] = f"sqlite:///{tmp_path / 'chatledger.db'}"
    package = packages[stage] / "deployment.zip"
    with serving(package, tmp_path, **variables) as (client, function):
        a_conversation_of_two(client)
        standard = Path(json.__file__).parents[1].resolve()
        for file in function.end():
            assert {tmp_path, standard} & {*file.resolve().parents}, file


@runs_here
def test_the_package_runs_on_dynamodb_and_on_the_table_of_its_template(
    packages: dict[str, Path],
    tmp_path: Path,
    client: "DynamoDBClient",
    dynamodb_local: DynamoDBLocal,
) -> None:
    template = template_in(packages["prod"])
    variables = variables_of(template) | OFFLINE
    with made(client, table_of(template, "prod"), ttl=True) as name:
        where = f"region={LOCAL_REGION}&endpoint={dynamodb_local.endpoint}"
        variables |= {
            "CHATLEDGER_STORE": f"dynamodb://{name}?{where}",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": KEY,
        }
        package = packages["prod"] / "deployment.zip"
        with serving(package, tmp_path, **variables) as (http, _):
            a_conversation_of_two(http)
            said(http, "Hi", user_id=someone())
        stamped = [item for item in client.scan(TableName=name)["Items"] if "expires_at" in item]
        assert stamped  # CHATLEDGER_EXPIRE_AFTER


@runs_here
def test_users_sign_in_to_the_package(packages: dict[str, Path], tmp_path: Path) -> None:
    package = packages["dev"] / "deployment.zip"
    store = f"sqlite:///{tmp_path / 'chatledger.db'}"
    with (
        key_server() as keys,
        serving(package, tmp_path, CHATLEDGER_STORE=store, **OFFLINE, **keys.settings) as (
            client,
            _,
        ),
    ):
        answer = client.post("/chat", json={"message": "Hi"})
        refused(answer, 401)
        assert "Bearer" in answer.headers["WWW-Authenticate"]
        answer = client.post("/chat", json={"message": "Hi"}, headers=headers("bob"))
        path = at(answer.json()["conversation_id"])
        assert client.get(path, headers=headers("bob")).status_code == 200
        refused(client.get(path, headers=headers("eve")), 404)


# chalice deploy -----------------------------------------------------------------------------------


@runs_here
def test_deploying_again_changes_what_is_there_and_deleting_leaves_nothing(
    project: Path, packages: dict[str, Path], tmp_path: Path, config: Fields
) -> None:
    with aws() as url:

        def connect(service: str) -> Any:
            return boto3.client(  # type: ignore[call-overload]
                service,
                endpoint_url=url,
                region_name=REGION,
                aws_access_key_id="chatledger",
                aws_secret_access_key="chatledger",
            )

        functions, gateway, roles = connect("lambda"), connect("apigateway"), connect("iam")
        addresses = set()
        for _ in range(2):
            chalice(project, "deploy", "--stage", "prod", AWS_ENDPOINT_URL=url)
            (api,) = gateway.get_rest_apis()["items"]
            (stage,) = gateway.get_stages(restApiId=api["id"])["item"]
            assert stage["stageName"] == "prod"
            addresses.add(api["id"])
            assert_deployed(functions, roles, policy_of("prod", config))
        assert len(addresses) == 1
        (function,) = functions.list_functions()["Functions"]
        package = deployed(project, function["CodeSha256"])
        variables = function["Environment"]["Variables"] | OFFLINE
        variables["CHATLEDGER_STORE"] = f"sqlite:///{tmp_path / 'chatledger.db'}"
        with serving(package, tmp_path, **variables) as (client, _):
            a_conversation_of_two(client)

        chalice(project, "delete", "--stage", "prod", AWS_ENDPOINT_URL=url)
        assert gateway.get_rest_apis()["items"] == []
        assert functions.list_functions()["Functions"] == []
        assert roles.list_roles()["Roles"] == []
        for each in (functions, gateway, roles):
            each.close()


def assert_deployed(functions: Any, roles: Any, policy: Mapping[str, Any]) -> None:
    (function,) = functions.list_functions()["Functions"]
    assert function["FunctionName"] == "chatledger-prod"
    store = function["Environment"]["Variables"]["CHATLEDGER_STORE"]
    assert store == "dynamodb://chatledger-prod?patience=2s"
    assert function["TracingConfig"]["Mode"] == "Active"
    concurrency = functions.get_function_concurrency(FunctionName="chatledger-prod")
    assert concurrency["ReservedConcurrentExecutions"] > 0
    role = function["Role"].rpartition("/")[2]
    (name,) = roles.list_role_policies(RoleName=role)["PolicyNames"]
    assert roles.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"] == policy


def deployed(project: Path, code_sha256: str) -> Path:
    """The package with that sum, which is what AWS has of it."""
    (found,) = [
        package
        for package in (project / ".chalice" / "deployments").glob("*.zip")
        if base64.b64encode(hashlib.sha256(package.read_bytes()).digest()).decode() == code_sha256
    ]
    return found
